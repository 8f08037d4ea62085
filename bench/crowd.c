// A crowd: the clients of a few rooms, by docs/protocol.md and nothing else. One thread, one epoll.
//
//     crowd PORT tcp|websocket ROOMS MEMBERS SENDERS IN_FLIGHT shortest|tutorial joined|single READ_BYTES WARM_UP SECONDS
//         PID ROOM
//
// Members log in with the lines `USER TOKEN` on stdin, room by room, from number ROOM on. In each room, SENDERS members
// take turns to keep SENDERS * IN_FLIGHT messages under way; one is done when all other members have it. Whoever gets
// messages acknowledges each: those of one read in one write, or each with a write of its own. After WARM_UP it measures
// for so many SECONDS, the CPU time of process PID among the rest, then waits until everything has arrived, and prints
// one line of JSON.
//
// Every delivery is counted by the receiver and the serial number in its content: nothing may be lost or come twice.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAGIC = 18673, LOGIN = 1001, BIZ = 1003, ACK = 1005, ROOM_CHAT = 5555, APP = 10001 };
enum { TEXT = 0x81, CLOSE = 0x88, PING = 0x89, PONG = 0x8A, MASKED = 0x80, LENGTH_16 = 126, LENGTH_64 = 127 };
enum { TCP_HEADER = 10, MSG_ID = 19, SERIAL = 10, EVENTS = 1024, BUFFER = 1 << 20, PACKET = 4096, DRAIN_SECONDS = 10 };
enum { LATENCY_EVERY = 16, LATENCIES = 1 << 20, LOGINS_AT_ONCE = 128, PATIENCE_SECONDS = 30 };

typedef struct room room;

typedef struct {
    int fd;
    long user;
    room *room;
    char *rest;  // an unfinished packet
    int rest_len, rest_cap;
    char *out;  // what the kernel did not take yet
    int out_start, out_len, out_cap;
    int is_upgraded, is_logged_in;
    unsigned char *seen;  // a bit for each serial
    int seen_cap;
} client;

typedef struct {
    double sent_at;
    int missing;
} message;

struct room {
    long number;
    client *members;
    message *messages;
    int sent, cap, done;
};

static int is_websocket, is_tutorial, is_joined, members_n, senders_n, in_flight, epoll, read_bytes;
static room *rooms;
static int rooms_n, logged_in, is_sending = 1;
static uint64_t deliveries, doubled, reads;
static float *latencies;
static int latencies_n;
static char buffer[BUFFER];
static client *corked;  // whose packets wait for the end of this read
static char cork[2 * BUFFER];
static int cork_len;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t)) fail("no such process");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now(void) { return seconds(CLOCK_MONOTONIC); }

static void *grow(void *p, size_t size) {
    p = realloc(p, size);
    if (!p) fail("out of memory");
    return p;
}

static uint32_t next_key(void) {
    static uint32_t state = 2463534242;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

// Writing

static void watch(client *c, int operation, uint32_t events) {
    struct epoll_event e = {events, {.ptr = c}};
    epoll_ctl(epoll, operation, c->fd, &e);
}

static void put(client *c, const char *data, int n) {
    ssize_t sent = 0;
    if (c == corked && cork_len + n <= (int)sizeof cork) {
        memcpy(cork + cork_len, data, n);
        cork_len += n;
        return;
    }
    if (c->out_start == c->out_len) {
        sent = send(c->fd, data, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) fail("user %ld: send: %s", c->user, strerror(errno));
        if (sent < 0) sent = 0;
        if (sent == n) return;
        c->out_start = c->out_len = 0;
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    n -= sent;
    if (c->out_len + n > c->out_cap) c->out = grow(c->out, c->out_cap = (c->out_len + n) * 2);
    memcpy(c->out + c->out_len, data + sent, n);
    c->out_len += n;
}

static void flush(client *c) {
    ssize_t sent = send(c->fd, c->out + c->out_start, c->out_len - c->out_start, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) fail("user %ld: send: %s", c->user, strerror(errno));
    if (sent > 0) c->out_start += sent;
    if (c->out_start == c->out_len) watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void uncork(client *c) {
    int n = cork_len;
    corked = NULL;
    cork_len = 0;
    if (n) put(c, cork, n);
}

static void put_frame(client *c, int first, const char *payload, int n) {
    char frame[PACKET * 2];
    int at = 0;
    frame[at++] = (char)first;
    if (n < LENGTH_16) {
        frame[at++] = (char)(MASKED | n);
    } else {
        frame[at++] = (char)(MASKED | LENGTH_16);
        frame[at++] = (char)(n >> 8);
        frame[at++] = (char)n;
    }
    uint32_t key = next_key();
    char *mask = frame + at;
    memcpy(mask, &key, 4);
    at += 4;
    for (int i = 0; i < n; i++) frame[at++] = payload[i] ^ mask[i & 3];
    put(c, frame, at);
}

static void put_packet(client *c, int code, const char *body) {
    char packet[PACKET];
    int n = (int)strlen(body);
    if (n > PACKET / 2 - 100) fail("a body of %d bytes", n);
    if (!is_websocket) {
        unsigned char header[TCP_HEADER] = {MAGIC >> 8, MAGIC & 255, 0, 0, code >> 8, code & 255, 0, 0, n >> 8, n & 255};
        memcpy(packet, header, TCP_HEADER);
        memcpy(packet + TCP_HEADER, body, n);
        put(c, packet, TCP_HEADER + n);
        return;
    }
    int at = sprintf(packet, "{\"magic\":%d,\"code\":%d,\"len\":%d,\"body\":\"", MAGIC, code, n);
    for (int i = 0; i < n; i++) {
        if (body[i] == '"' || body[i] == '\\') packet[at++] = '\\';
        packet[at++] = body[i];
    }
    memcpy(packet + at, "\"}", 2);
    put_frame(c, TEXT, packet, at + 2);
}

static void acknowledge(client *c, const char *msg_id) {
    char body[128];
    if (is_tutorial)
        sprintf(body, "{\"appId\":%d,\"userId\":%ld,\"msgId\":\"%.*s\"}", APP, c->user, MSG_ID, msg_id);
    else
        sprintf(body, "{\"msgId\":\"%.*s\"}", MSG_ID, msg_id);
    put_packet(c, ACK, body);
}

static void say(room *r) {
    if (r->sent == r->cap) r->messages = grow(r->messages, (r->cap = r->cap * 2 + 1024) * sizeof *r->messages);
    client *c = &r->members[r->sent % senders_n];
    char body[512];
    // The serial stands between two signs that nothing else in a packet has.
    sprintf(body,
            "{\"appId\":%d,\"userId\":%ld,\"bizCode\":%d,"
            "\"data\":\"{\\\"roomId\\\":%ld,\\\"type\\\":1,\\\"content\\\":\\\"#%0*d#xxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\"}\"}",
            APP, c->user, ROOM_CHAT, r->number, SERIAL, r->sent);
    r->messages[r->sent++] = (message){now(), members_n - 1};
    put_packet(c, BIZ, body);
}

// Reading

static void count(client *c, int serial, double at) {
    room *r = c->room;
    if (serial < 0 || serial >= r->sent) fail("user %ld: message %d was never sent", c->user, serial);
    if (serial / 8 >= c->seen_cap) {
        int cap = (serial / 8 + 1) * 2;
        c->seen = grow(c->seen, cap);
        memset(c->seen + c->seen_cap, 0, cap - c->seen_cap);
        c->seen_cap = cap;
    }
    if (c->seen[serial / 8] & 1 << serial % 8) {
        doubled++;
        return;
    }
    c->seen[serial / 8] |= (unsigned char)(1 << serial % 8);
    message *m = &r->messages[serial];
    if (deliveries++ % LATENCY_EVERY == 0 && latencies_n < LATENCIES) latencies[latencies_n++] = (float)(at - m->sent_at);
    if (--m->missing) return;
    r->done++;
    if (is_sending) say(r);
}

static void on_packet(client *c, int code, const char *body, int n, double at) {
    if (code == LOGIN) {
        c->is_logged_in = 1;
        logged_in++;
        return;
    }
    if (code != BIZ) fail("user %ld got %d %.*s", c->user, code, n, body);
    const char *name = is_websocket ? "\\\"msgId\\\":\\\"" : "\"msgId\":\"";
    const char *msg_id = memmem(body, n, name, strlen(name));
    if (!msg_id) return;  // something happened in the room
    msg_id += strlen(name);
    const char *serial = memchr(body, '#', n);
    if (!serial || body + n - serial < SERIAL + 1 || body + n - msg_id < MSG_ID) fail("user %ld got %.*s", c->user, n, body);
    acknowledge(c, msg_id);
    count(c, atoi(serial + 1), at);
}

// How many bytes at `p` are read off; 0 while the packet there is unfinished.
static int take_tcp(client *c, const char *p, int n, double at) {
    if (n < TCP_HEADER) return 0;
    const unsigned char *h = (const unsigned char *)p;
    int code = h[2] << 24 | h[3] << 16 | h[4] << 8 | h[5], len = h[6] << 24 | h[7] << 16 | h[8] << 8 | h[9];
    if ((h[0] << 8 | h[1]) != MAGIC || len < 0 || len > BUFFER / 2) fail("user %ld: no packet", c->user);
    if (n - TCP_HEADER < len) return 0;
    on_packet(c, code, p + TCP_HEADER, len, at);
    return TCP_HEADER + len;
}

static int take_frame(client *c, const char *p, int n, double at) {
    if (n < 2) return 0;
    const unsigned char *h = (const unsigned char *)p;
    int header = 2, len = h[1];
    if (len == LENGTH_16) {
        if (n < 4) return 0;
        header = 4;
        len = h[2] << 8 | h[3];
    } else if (len > LENGTH_16) {
        fail("user %ld got a frame of many bytes, or one that is masked", c->user);
    }
    if (n - header < len) return 0;
    p += header;
    if (h[0] == PING) {
        put_frame(c, PONG, p, len);
    } else if (h[0] == TEXT) {
        const char *code = memmem(p, len, "\"code\":", 7);
        const char *body = memmem(p, len, "\"body\":\"", 8);
        if (!code || !body) fail("user %ld got %.*s", c->user, len, p);
        on_packet(c, atoi(code + 7), body + 8, (int)(p + len - body) - 8, at);
    } else {
        fail("user %ld got a frame %x: %.*s", c->user, h[0], len, p);
    }
    return header + len;
}

static int take_upgrade(client *c, const char *p, int n) {
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(p, "HTTP/1.1 101", 12)) fail("user %ld got %.*s", c->user, n, p);
    c->is_upgraded = 1;
    return (int)(end - p) + 4;
}

static void on_readable(client *c) {
    if (c->rest_len) memcpy(buffer, c->rest, c->rest_len);
    ssize_t got = recv(c->fd, buffer + c->rest_len, read_bytes, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("user %ld: the server closed", c->user);
    reads++;
    double at = now();
    corked = is_joined ? c : NULL;
    int n = c->rest_len + (int)got, start = 0, taken;
    do {
        const char *p = buffer + start;
        if (!is_websocket)
            taken = take_tcp(c, p, n - start, at);
        else if (c->is_upgraded)
            taken = take_frame(c, p, n - start, at);
        else
            taken = take_upgrade(c, p, n - start);
        start += taken;
    } while (taken);
    uncork(c);
    c->rest_len = n - start;
    if (c->rest_len > BUFFER / 2) fail("user %ld: a packet without end", c->user);
    if (c->rest_len > c->rest_cap) c->rest = grow(c->rest, c->rest_cap = c->rest_len * 2);
    if (c->rest_len) memcpy(c->rest, buffer + start, c->rest_len);
}

static void turn(int milliseconds) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll, events, EVENTS, milliseconds);
    for (int i = 0; i < n; i++) {
        client *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) flush(c);
        if (events[i].events & ~(uint32_t)EPOLLOUT) on_readable(c);
    }
}

// One run

static void log_in(client *c, int port, const char *token) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (void *)&address, sizeof address)) fail("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct linger reset = {1, 0};  // so that thousands of ports do not wait for a minute after each run
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    char text[2048];
    if (is_websocket) {  // the address is the login; the `%` of a token stands there as `%25`
        int n = sprintf(text, "GET /");
        for (; *token && n < 1024; token++) n += sprintf(text + n, *token == '%' ? "%%25" : "%c", *token);
        sprintf(text + n,
                "/%ld/%d/%ld HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                c->user, LOGIN, c->room->number);
        put(c, text, (int)strlen(text));
    } else {
        snprintf(text, sizeof text,
                 "{\"appId\":%d,\"userId\":%ld,\"token\":\"%s\",\"data\":\"{\\\"roomId\\\":%ld}\"}", APP, c->user, token,
                 c->room->number);
        put_packet(c, LOGIN, text);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static void wait_for_logins(int wanted) {
    double until = now() + PATIENCE_SECONDS;
    while (logged_in < wanted) {
        if (now() > until) fail("%d of %d logins were answered", logged_in, wanted);
        turn(100);
    }
}

// Segments with data that have come: of a server with TCP_NODELAY, one for each of its writes.
static uint64_t segments(void) {
    uint64_t total = 0;
    for (int r = 0; r < rooms_n; r++)
        for (int i = 0; i < members_n; i++) {
            unsigned char info[256] = {0};
            socklen_t size = sizeof info;
            uint32_t came;
            getsockopt(rooms[r].members[i].fd, IPPROTO_TCP, TCP_INFO, info, &size);
            memcpy(&came, info + 152, sizeof came);  // tcpi_data_segs_in, which older headers do not name
            total += came;
        }
    return total;
}

static int unfinished(void) {
    int n = 0;
    for (int r = 0; r < rooms_n; r++) n += rooms[r].sent - rooms[r].done;
    return n;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (!latencies_n) return 0;
    int at = (int)(share * latencies_n);
    return 1000 * latencies[at < latencies_n ? at : latencies_n - 1];
}

static void run_until(double until) {
    double left;
    while ((left = until - now()) > 0) turn(left > 0.5 ? 500 : (int)(1000 * left) + 1);
}

int main(int argc, char **argv) {
    if (argc != 14) fail("see the head of crowd.c for its arguments");
    int port = atoi(argv[1]);
    is_websocket = !strcmp(argv[2], "websocket");
    rooms_n = atoi(argv[3]);
    members_n = atoi(argv[4]);
    senders_n = atoi(argv[5]);
    in_flight = atoi(argv[6]);
    is_tutorial = !strcmp(argv[7], "tutorial");
    is_joined = !strcmp(argv[8], "joined");
    read_bytes = atoi(argv[9]);
    double warm_up = atof(argv[10]), span = atof(argv[11]);
    clockid_t server = (clockid_t)(~(unsigned)atoi(argv[12]) << 3 | 2);  // as clock_getcpuclockid(3) makes it
    long first_room = atol(argv[13]);
    if (rooms_n < 1 || members_n < 2 || senders_n < 1 || senders_n > members_n || in_flight < 1) fail("an empty room");
    if (read_bytes < 64 || read_bytes > BUFFER / 2) fail("READ_BYTES: expected 64 to %d", BUFFER / 2);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    rooms = calloc(rooms_n, sizeof *rooms);
    latencies = calloc(LATENCIES, sizeof *latencies);
    if (!rooms || !latencies) fail("out of memory");
    int connected = 0;
    for (int r = 0; r < rooms_n; r++) {
        rooms[r].number = first_room + r;
        rooms[r].members = calloc(members_n, sizeof(client));
        if (!rooms[r].members) fail("out of memory");
        for (int i = 0; i < members_n; i++) {
            client *c = &rooms[r].members[i];
            char token[512] = "";
            if (scanf("%ld%*1[ ]%511[^\n]", &c->user, token) < 1) fail("a line `USER TOKEN` for each member is expected");
            c->room = &rooms[r];
            log_in(c, port, token);
            if (++connected % LOGINS_AT_ONCE == 0) wait_for_logins(connected);
        }
    }
    wait_for_logins(connected);
    run_until(now() + 0.1);  // who enters is news for who is there; let it come first
    for (int r = 0; r < rooms_n; r++)
        for (int i = 0; i < senders_n * in_flight; i++) say(&rooms[r]);
    run_until(now() + warm_up);
    uint64_t deliveries_before = deliveries, reads_before = reads, segments_before = segments();
    latencies_n = 0;
    double start = now(), server_start = seconds(server), own_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run_until(start + span);
    double took = now() - start, server_cpu = seconds(server) - server_start;
    double own_cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - own_start;
    uint64_t done = deliveries - deliveries_before, reads_done = reads - reads_before;
    uint64_t segments_done = segments() - segments_before;
    qsort(latencies, latencies_n, sizeof *latencies, by_size);
    double p50 = percentile(0.5), p99 = percentile(0.99);
    is_sending = 0;
    for (double until = now() + DRAIN_SECONDS; unfinished() && now() < until;) turn(100);
    run_until(now() + 0.06);  // and a moment more, for what nobody should get
    uint64_t lost = 0;
    for (int r = 0; r < rooms_n; r++)
        for (int i = 0; i < rooms[r].sent; i++) lost += rooms[r].messages[i].missing;
    printf("{\"done\":%llu,\"seconds\":%.6f,\"server_cpu\":%.6f,\"generator_cpu\":%.6f,\"p50\":%.4f,\"p99\":%.4f,"
           "\"reads\":%llu,\"segments\":%llu,\"lost\":%llu,\"doubled\":%llu}\n",
           (unsigned long long)done, took, server_cpu, own_cpu, p50, p99, (unsigned long long)reads_done,
           (unsigned long long)segments_done, (unsigned long long)lost, (unsigned long long)doubled);
    return 0;
}

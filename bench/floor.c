// The floor: what the same work costs in C. One thread, one epoll, TCP frames; a message is made ready once for all
// its receivers. ACKs are read and skipped: no in-flight table, no limits, no tokens, nothing per receiver in a body.
//
//     floor PORT send|coalesce       PORT 0 is any free one
//
// send: one system call for each receiver of each message. coalesce: one for each receiver and turn of the loop.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAGIC = 18673, LOGIN = 1001, BIZ = 1003, HEARTBEAT = 1004 };
enum { HEADER = 10, READ = 262144, BODY = 8000, ROOMS = 65536, USERS = 1 << 20, EVENTS = 1024 };

typedef struct conn {
    int fd, room;
    long user;
    char *rest;  // an unfinished packet
    int rest_len, rest_cap;
    char *out;  // what the kernel did not take yet
    int out_start, out_len, out_cap;
    int wants_write, is_dirty;
} conn;

typedef struct {
    conn **members;
    int n, cap;
} room;

static room rooms[ROOMS];
static conn *by_user[USERS];
static conn **dirty;
static int dirty_n, dirty_cap;
static int epoll, coalesce;
static long msg_id = 1000000000000000000;  // 19 digits, as qiyu's
static char buffer[1 << 20];

static void *grow(void *p, size_t size) {
    p = realloc(p, size);
    if (!p) abort();
    return p;
}

static void want_write(conn *c, int wanted) {
    if (c->wants_write == wanted) return;
    c->wants_write = wanted;
    struct epoll_event e = {EPOLLIN | (wanted ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void owe(conn *c, const char *data, int n) {
    if (c->out_len + n > c->out_cap) c->out = grow(c->out, c->out_cap = (c->out_len + n) * 2);
    memcpy(c->out + c->out_len, data, n);
    c->out_len += n;
}

static void flush(conn *c) {
    while (c->out_start < c->out_len) {
        ssize_t sent = send(c->fd, c->out + c->out_start, c->out_len - c->out_start, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) {
                want_write(c, 1);
                return;
            }
            break;
        }
        c->out_start += sent;
    }
    c->out_start = c->out_len = 0;
    want_write(c, 0);
}

static void put(conn *c, const char *data, int n) {
    if (coalesce) {
        owe(c, data, n);
        if (c->is_dirty) return;
        c->is_dirty = 1;
        if (dirty_n == dirty_cap) dirty = grow(dirty, (dirty_cap = dirty_cap * 2 + 1024) * sizeof *dirty);
        dirty[dirty_n++] = c;
        return;
    }
    if (c->out_len) {
        owe(c, data, n);
        return;
    }
    ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);
    if (sent < 0) sent = 0;
    if (sent < n) {
        owe(c, data + sent, n - sent);
        want_write(c, 1);
    }
}

// Put the header in front of a body of `len` bytes that stands at packet + HEADER; returns the size of it all.
static int finish(char *packet, int code, int len) {
    unsigned char header[HEADER] = {MAGIC >> 8, MAGIC & 255, code >> 24, code >> 16, code >> 8, code,
                                    len >> 24,  len >> 16,   len >> 8,   len};
    memcpy(packet, header, HEADER);
    return HEADER + len;
}

static long number_after(const char *body, int n, const char *name) {
    const char *found = memmem(body, n, name, strlen(name));
    return found ? atol(found + strlen(name)) : 0;
}

static void answer(conn *c, int code) {
    char packet[256];
    int len = sprintf(packet + HEADER, "{\"appId\":10001,\"userId\":%ld,\"data\":\"true\"}", c->user);
    put(c, packet, finish(packet, code, len));
}

static void log_in(conn *c, const char *body, int n) {
    c->user = number_after(body, n, "\"userId\":");
    c->room = number_after(body, n, "roomId\\\":") & (ROOMS - 1);
    if (c->user < USERS) by_user[c->user] = c;
    room *r = &rooms[c->room];
    if (r->n == r->cap) r->members = grow(r->members, (r->cap = r->cap * 2 + 64) * sizeof *r->members);
    r->members[r->n++] = c;
    answer(c, LOGIN);
}

static void deliver(conn *c, const char *body, int n) {
    char packet[HEADER + BODY + 64];
    memcpy(packet + HEADER, body, n - 1);
    int len = n - 1 + sprintf(packet + HEADER + n - 1, ",\"msgId\":\"%ld\"}", msg_id++);
    int size = finish(packet, BIZ, len);
    long to = number_after(body, n, "objectId\\\":");
    if (to) {
        if (to > 0 && to < USERS && by_user[to]) put(by_user[to], packet, size);
        return;
    }
    room *r = &rooms[c->room];
    for (int i = 0; i < r->n; i++)
        if (r->members[i] != c) put(r->members[i], packet, size);
}

static void on_packet(conn *c, int code, const char *body, int n) {
    if (code == LOGIN) log_in(c, body, n);
    if (code == HEARTBEAT) answer(c, HEARTBEAT);
    if (code == BIZ && n < BODY) deliver(c, body, n);
}

static void forget(conn *c) {
    close(c->fd);
    c->fd = -1;  // the rest of it stays: an event of this turn may still name it
    room *r = &rooms[c->room];
    for (int i = 0; i < r->n; i++)
        if (r->members[i] == c) {
            r->members[i] = r->members[--r->n];
            break;
        }
    if (c->user < USERS && by_user[c->user] == c) by_user[c->user] = NULL;
    free(c->rest);
    free(c->out);
    c->rest = c->out = NULL;
    c->rest_len = c->rest_cap = c->out_start = c->out_len = c->out_cap = 0;
}

static void on_readable(conn *c) {
    if (c->rest_len) memcpy(buffer, c->rest, c->rest_len);
    ssize_t got = recv(c->fd, buffer + c->rest_len, READ, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        forget(c);
        return;
    }
    int n = c->rest_len + got, at = 0;
    while (n - at >= HEADER) {
        unsigned char *h = (unsigned char *)buffer + at;
        int code = h[2] << 24 | h[3] << 16 | h[4] << 8 | h[5], len = h[6] << 24 | h[7] << 16 | h[8] << 8 | h[9];
        if (n - at < HEADER + len) break;
        on_packet(c, code, buffer + at + HEADER, len);
        at += HEADER + len;
    }
    c->rest_len = n - at;
    if (c->rest_len > c->rest_cap) c->rest = grow(c->rest, c->rest_cap = c->rest_len * 2);
    if (c->rest_len) memcpy(c->rest, buffer + at, c->rest_len);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        struct epoll_event e = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) {
        perror("bind");
        exit(1);
    }
    getsockname(listener, (void *)&address, &size);
    printf("tcp listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    coalesce = argc > 2 && !strcmp(argv[2], "coalesce");
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    epoll = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.ptr = NULL}}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (c->fd < 0) continue;
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
        for (int i = 0; i < dirty_n; i++) {
            dirty[i]->is_dirty = 0;
            if (dirty[i]->fd >= 0) flush(dirty[i]);
        }
        dirty_n = 0;
    }
}

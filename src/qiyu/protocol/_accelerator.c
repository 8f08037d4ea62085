/* The innermost reading in C: runs of ACKs, and unmasking. What each function takes and gives is said in ack_runs.py
 * and masking.py, which do the same in Python; _accelerator.pyi has the types, and accelerator.py chooses.
 *
 * The rules here: bytes are read between two pointers, and each read is behind a look at how many are left. Nothing is
 * kept between two calls. Nothing is taken that the common road would read otherwise: whatever is different in any way
 * is not an ACK.
 *
 * Only the stable ABI of Python 3.11 is used, so one build serves that and every later version.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum {
    INTERFACE = 1,       /* counted up with any change of what a function takes or gives */
    MSG_ID_DIGITS = 19,  /* packet.py */
    NUMBER_DIGITS = 19,  /* ack_runs.py, _NUMBER */
    HEADER_BYTES = 10,   /* tcp.py */
    KEY_BYTES = 4,       /* RFC 6455, section 5.3 */
    SMALL_BYTES = 512,   /* masking.py */
};

/* Text that is read from `at` to `end`. In a body inside an envelope, each quotation mark has a backslash before it. */
typedef struct {
    const char *at;
    const char *end;
    const char *quote;
} Text;

/* How many bytes an ACK has before its msgId, and after it. */
typedef struct {
    Py_ssize_t before;
    Py_ssize_t after;
} Shape;

/* Step over `expected` if that is what stands there. */
static int
literal(Text *text, const char *expected)
{
    size_t length = strlen(expected);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, expected, length) != 0) {
        return 0;
    }
    text->at += length;
    return 1;
}

static int
key(Text *text, const char *name)
{
    Text ahead = *text;
    if (!literal(&ahead, ahead.quote) || !literal(&ahead, name) || !literal(&ahead, ahead.quote) ||
        !literal(&ahead, ":")) {
        return 0;
    }
    literal(&ahead, " ");
    text->at = ahead.at;
    return 1;
}

static Py_ssize_t
digits(Text *text)
{
    const char *first = text->at;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        text->at++;
    }
    return text->at - first;
}

/* A number as JSON writes it, whole and not negative. */
static int
number(Text *text)
{
    const char *first = text->at;
    Py_ssize_t length = digits(text);
    return length == 1 || (length > 1 && length <= NUMBER_DIGITS && *first != '0');
}

static int
quoted_digits(Text *text)
{
    return literal(text, text->quote) && digits(text) > 0 && literal(text, text->quote);
}

static int
comma(Text *text)
{
    if (!literal(text, ",")) {
        return 0;
    }
    literal(text, " ");
    return 1;
}

/* A field of an ACK that says nothing which an ACK is read for. */
static int
quiet_field(Text *text)
{
    if (key(text, "appId") || key(text, "userId") || key(text, "bizCode")) {
        Text ahead = *text;
        if (literal(text, "null") || number(text)) {
            return 1;
        }
        *text = ahead;
        return quoted_digits(text);
    }
    if (key(text, "token") || key(text, "data") || key(text, "clientMsgId")) {
        return literal(text, "null") || (literal(text, text->quote) && literal(text, text->quote));
    }
    return 0;
}

static int
is_msg_id(const char *at)
{
    int good = 1;
    for (int i = 0; i < MSG_ID_DIGITS; i++) {
        good &= at[i] >= '0' && at[i] <= '9';
    }
    return good;
}

/* Where the digits of the ACK begin whose body stands there; NULL if it is none that is read here. */
static const char *
ack_body(Text *text)
{
    if (!literal(text, "{")) {
        return NULL;
    }
    while (!key(text, "msgId")) {
        if (!quiet_field(text) || !comma(text)) {
            return NULL;
        }
    }
    if (!literal(text, text->quote) || text->end - text->at < MSG_ID_DIGITS || !is_msg_id(text->at)) {
        return NULL;
    }
    const char *found = text->at;
    text->at += MSG_ID_DIGITS;
    if (!literal(text, text->quote)) {
        return NULL;
    }
    while (comma(text)) {
        if (!quiet_field(text)) {
            return NULL;
        }
    }
    return literal(text, "}") ? found : NULL;
}

/* The same for a whole message: an envelope with an ACK in it. */
static const char *
ack_message(const char *message, Py_ssize_t length)
{
    Text text = {message, message + length, "\""};
    const char *found = NULL;
    int has_magic = 0, has_code = 0;
    if (!literal(&text, "{")) {
        return NULL;
    }
    do {
        if (key(&text, "magic")) {
            has_magic = 1;
            if (!literal(&text, "18673")) {
                return NULL;
            }
        }
        else if (key(&text, "code")) {
            has_code = 1;
            if (!literal(&text, "1005")) {
                return NULL;
            }
        }
        else if (key(&text, "len")) {
            if (!number(&text)) {
                return NULL;
            }
        }
        else if (found == NULL && key(&text, "body")) {
            if (!literal(&text, "\"")) {
                return NULL;
            }
            text.quote = "\\\"";
            found = ack_body(&text);
            text.quote = "\"";
            if (found == NULL || !literal(&text, "\"")) {
                return NULL;
            }
        }
        else {
            return NULL;
        }
    } while (comma(&text));
    return literal(&text, "}") && text.at == text.end && has_magic && has_code ? found : NULL;
}

/* Whether the ACK at `text` is like the first, but for the msgId. */
static int
is_alike(const char *text, const char *first, const Shape *shape)
{
    const char *behind = text + shape->before + MSG_ID_DIGITS;
    return memcmp(text, first, (size_t)shape->before) == 0 && is_msg_id(text + shape->before) &&
           memcmp(behind, first + shape->before + MSG_ID_DIGITS, (size_t)shape->after) == 0;
}

static int
append_msg_id(PyObject *msg_ids, const char *at)
{
    PyObject *msg_id = PyUnicode_FromStringAndSize(at, MSG_ID_DIGITS);
    if (msg_id == NULL) {
        return -1;
    }
    int failed = PyList_Append(msg_ids, msg_id);
    Py_DECREF(msg_id);
    return failed;
}

/* (end, value); takes the reference to `value`, which may be NULL after an error. */
static PyObject *
result(Py_ssize_t end, PyObject *value)
{
    if (value == NULL) {
        return NULL;
    }
    PyObject *position = PyLong_FromSsize_t(end);
    PyObject *pair = position == NULL ? NULL : PyTuple_Pack(2, position, value);
    Py_XDECREF(position);
    Py_DECREF(value);
    return pair;
}

/* Read `count` numbers from behind the first argument. */
static int
numbers(const char *name, PyObject *const *args, Py_ssize_t given, int count, Py_ssize_t *found)
{
    if (given != count + 1) {
        PyErr_Format(PyExc_TypeError, "%s: expected %d arguments, got %zd", name, count + 1, given);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        found[i] = PyLong_AsSsize_t(args[i + 1]);
        if (found[i] == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

static int
out_of_range(const char *name)
{
    PyErr_Format(PyExc_ValueError, "%s: the positions are not in the data", name);
    return -1;
}

/* The run at start:end of `size` bytes; sets `end` to where it ends. NULL without an error if there is none. */
static PyObject *
packets_at(const char *data, Py_ssize_t size, Py_ssize_t start, Py_ssize_t *end)
{
    const char *first = data + start;
    Py_ssize_t frame = *end - start;
    if (frame < HEADER_BYTES || memcmp(first, "\x48\xf1\0\0\x03\xed", 6) != 0) {
        return NULL;
    }
    Text text = {first + HEADER_BYTES, first + frame, "\""};
    const char *found = ack_body(&text);
    if (found == NULL || text.at != text.end) {
        return NULL;
    }
    Shape shape = {found - first, frame - (found - first) - MSG_ID_DIGITS};
    PyObject *msg_ids = PyList_New(0);
    Py_ssize_t at = start;
    if (msg_ids == NULL) {
        return NULL;
    }
    do {
        if (append_msg_id(msg_ids, data + at + shape.before)) {
            Py_DECREF(msg_ids);
            return NULL;
        }
        at += frame;
    } while (size - at >= frame && is_alike(data + at, first, &shape));
    *end = at;
    return msg_ids;
}

static PyObject *
read_packets(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_ssize_t at[2];
    Py_buffer data;
    if (numbers("read_packets", args, given, 2, at) || PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE)) {
        return NULL;
    }
    PyObject *msg_ids = NULL;
    if (at[0] < 0 || at[1] < at[0] || at[1] > data.len) {
        out_of_range("read_packets");
    }
    else {
        msg_ids = packets_at(data.buf, data.len, at[0], &at[1]);
    }
    PyBuffer_Release(&data);
    if (msg_ids == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return result(at[1], msg_ids);
}

/* XOR with the key of four bytes, over and over. */
static void
apply_key(char *to, const char *from, Py_ssize_t length, const char *key)
{
    uint32_t once;
    memcpy(&once, key, KEY_BYTES);
    uint64_t twice = (uint64_t)once << 32 | once;
    Py_ssize_t i = 0;
    for (; length - i >= 8; i += 8) {
        uint64_t eight;
        memcpy(&eight, from + i, 8);
        eight ^= twice;
        memcpy(to + i, &eight, 8);
    }
    for (; i < length; i++) {
        to[i] = from[i] ^ key[i % KEY_BYTES];
    }
}

/* `bytes` that may be read at start:stop with a key before it, at `from` or later. */
static const char *
masked_bytes(const char *name, PyObject *object, Py_ssize_t from, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t *size)
{
    char *data;
    if (PyBytes_AsStringAndSize(object, &data, size)) {
        return NULL;
    }
    if (from < 0 || from > *size || start < KEY_BYTES || start - KEY_BYTES < from || stop < start || stop > *size) {
        out_of_range(name);
        return NULL;
    }
    return data;
}

static PyObject *
read_frames(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_ssize_t at[3], size;
    if (numbers("read_frames", args, given, 3, at)) {
        return NULL;
    }
    Py_ssize_t start = at[1], stop = at[2];
    const char *data = masked_bytes("read_frames", args[0], at[0], start, stop, &size);
    if (data == NULL) {
        return NULL;
    }
    const char *head = data + at[0];
    Py_ssize_t length = stop - start, frame = stop - at[0], header = start - KEY_BYTES - at[0];
    if (length >= SMALL_BYTES) {
        out_of_range("read_frames");
        return NULL;
    }
    char first[SMALL_BYTES], next[SMALL_BYTES];
    apply_key(first, data + start, length, data + start - KEY_BYTES);
    const char *found = ack_message(first, length);
    if (found == NULL) {
        return result(stop, PyBytes_FromStringAndSize(first, length));
    }
    Shape shape = {found - first, length - (found - first) - MSG_ID_DIGITS};
    PyObject *msg_ids = PyList_New(0);
    if (msg_ids == NULL || append_msg_id(msg_ids, found)) {
        Py_XDECREF(msg_ids);
        return NULL;
    }
    while (size - stop >= frame && memcmp(data + stop, head, (size_t)header) == 0) {
        const char *payload = data + stop + header + KEY_BYTES;
        apply_key(next, payload, length, payload - KEY_BYTES);
        if (!is_alike(next, first, &shape)) {
            break;
        }
        if (append_msg_id(msg_ids, next + shape.before)) {
            Py_DECREF(msg_ids);
            return NULL;
        }
        stop += frame;
    }
    return result(stop, msg_ids);
}

static PyObject *
unmask(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_ssize_t at[2], size;
    if (numbers("unmask", args, given, 2, at)) {
        return NULL;
    }
    const char *data = masked_bytes("unmask", args[0], 0, at[0], at[1], &size);
    if (data == NULL) {
        return NULL;
    }
    PyObject *message = PyBytes_FromStringAndSize(NULL, at[1] - at[0]);
    if (message != NULL) {
        apply_key(PyBytes_AsString(message), data + at[0], at[1] - at[0], data + at[0] - KEY_BYTES);
    }
    return message;
}

static int
execute(PyObject *module)
{
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyMethodDef methods[] = {
    {"read_packets", (PyCFunction)(void (*)(void))read_packets, METH_FASTCALL, NULL},
    {"read_frames", (PyCFunction)(void (*)(void))read_frames, METH_FASTCALL, NULL},
    {"unmask", (PyCFunction)(void (*)(void))unmask, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "qiyu.protocol._accelerator",
    .m_doc = "Runs of ACKs, and unmasking, in C.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__accelerator(void)
{
    return PyModuleDef_Init(&definition);
}

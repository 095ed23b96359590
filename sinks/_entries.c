/* Entries on their way to a replica: the compiled counterpart of loops in sinks.copy_text and, in _replies.c, of
   sinks.entries.

   Both take what is common and leave the rest to the Python code, which defines what things mean. Entries come from
   Redis, where anybody may have written them: nothing is assumed of what they hold. Only the stable ABI is used.
*/

#include "_entries.h"

#include <stdint.h>

/* --- states as lines of COPY's text format --------------------------------------------------------------------------*/

/* How the JSON of a field's values looks: sinks.copy_text tells which types these are of. */
enum form { NUMBER = 'n', FLOAT = 'f', BOOLEAN = 'b', STRING = 's', JSONB = 'J', JSON = 'j' };

struct field {
    const char *label; /* what stands before its value: its name as JSON text, and a colon */
    size_t label_size;
    unsigned char form;
    int is_written;
};

typedef struct {
    PyObject_HEAD
    PyObject *given; /* a tuple, which owns the labels */
    struct field *fields;
    size_t count;
} LineWriter;

/* What is written never has more bytes than this many for each that is read, and a NULL. */
enum { MOST_GROWTH = 2 };

struct cursor {
    const char *at, *end;
    char *out;
};

static int is_number_letter(char byte)
{
    return (byte >= '0' && byte <= '9') || byte == '-';
}

static int is_float_letter(char byte)
{
    return is_number_letter(byte) || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '.' ||
           byte == '+';
}

static int begins_with(const struct cursor *in, const char *text, size_t size)
{
    return (size_t)(in->end - in->at) >= size && memcmp(in->at, text, size) == 0;
}

static void emit(struct cursor *in, const struct field *field, const char *text, size_t size)
{
    if (field->is_written) {
        memcpy(in->out, text, size);
        in->out += size;
    }
}

static void write_null(struct cursor *in, const struct field *field)
{
    emit(in, field, "\\N", 2);
    in->at += 4;
}

/* Each of these takes one value, and returns whether it could. */

static int take_letters(struct cursor *in, const struct field *field, int (*is_letter)(char))
{
    const char *start = in->at;
    while (in->at < in->end && is_letter(*in->at))
        in->at++;
    emit(in, field, start, (size_t)(in->at - start));
    return in->at > start;
}

static int take_number(struct cursor *in, const struct field *field)
{
    if (begins_with(in, "null", 4)) {
        write_null(in, field);
        return 1;
    }
    return take_letters(in, field, is_number_letter);
}

/* NaN and the infinities are strings. */
static int take_float(struct cursor *in, const struct field *field)
{
    if (begins_with(in, "null", 4)) {
        write_null(in, field);
        return 1;
    }
    int quoted = begins_with(in, "\"", 1);
    in->at += quoted;
    if (!take_letters(in, field, is_float_letter) || begins_with(in, "\"", 1) != quoted)
        return 0;
    in->at += quoted;
    return 1;
}

static int take_boolean(struct cursor *in, const struct field *field)
{
    size_t size = begins_with(in, "true", 4) ? 4 : begins_with(in, "false", 5) ? 5 : 0;
    if (size == 0) {
        if (!begins_with(in, "null", 4))
            return 0;
        write_null(in, field);
        return 1;
    }
    emit(in, field, in->at, size);
    in->at += size;
    return 1;
}

/* Not 0 where a byte of the word is at most so much, which is below 128.
   Source: https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord */
static uint64_t at_most(uint64_t word, unsigned char most)
{
    const uint64_t ones = 0x0101010101010101;
    return (word - ones * (most + 1U)) & ~word & (ones << 7);
}

/* Step over bytes up to `end` that are no control character, no backslash, and not `other`. */
static void pass_plain(struct cursor *in, const char *end, char other)
{
    const uint64_t ones = 0x0101010101010101, others = ones * (unsigned char)other;
    for (uint64_t word; end - in->at >= 8; in->at += 8) {
        memcpy(&word, in->at, 8);
        if (at_most(word, 0x1f) | at_most(word ^ (ones * '\\'), 0) | at_most(word ^ others, 0))
            break;
    }
    while (in->at < end && (unsigned char)*in->at >= 0x20 && *in->at != '\\' && *in->at != other)
        in->at++;
}

/* A string's escapes are COPY's, but for those that COPY does not have. */
static int take_string(struct cursor *in, const struct field *field)
{
    if (begins_with(in, "null", 4)) {
        write_null(in, field);
        return 1;
    }
    if (!begins_with(in, "\"", 1))
        return 0;
    const char *start = ++in->at;
    for (;; in->at++) {
        pass_plain(in, in->end, '"');
        if (in->at == in->end || (unsigned char)*in->at < 0x20)
            return 0;
        if (*in->at == '"')
            break;
        if (++in->at == in->end || *in->at == 0 || strchr("\"\\/bfnrt", *in->at) == NULL)
            return 0;
    }
    emit(in, field, start, (size_t)(in->at - start));
    in->at++;
    return 1;
}

/* Where `,` and the label of the next field are, the first place of all or the last; NULL: nowhere. */
static const char *find_next(const struct cursor *in, const struct field *next, int last)
{
    const char *found = NULL;
    const char *at = in->at;
    while ((size_t)(in->end - at) > next->label_size &&
           (at = memchr(at, ',', (size_t)(in->end - at) - next->label_size)) != NULL) {
        if (memcmp(at + 1, next->label, next->label_size) == 0) {
            found = at;
            if (!last)
                break;
        }
        at++;
    }
    return found;
}

/* What COPY wants instead of a document's byte; NULL: the byte. */
static const char *escape_of(char byte)
{
    switch (byte) {
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\t':
        return "\\t";
    case '\r':
        return "\\r";
    default:
        return NULL;
    }
}

/* A document reaches to the next field, or to the end of the state: jsonb has a space behind each comma, so what
   follows it is never found inside of it; there is no second json. */
static int take_document(struct cursor *in, const struct field *field, const struct field *next)
{
    const char *end = in->end - 1;
    if (next != NULL)
        end = find_next(in, next, field->form == JSON);
    if (end == NULL || end <= in->at)
        return 0;
    if (begins_with(in, "null", 4)) {
        if (end - in->at != 4)
            return 0;
        write_null(in, field);
        return 1;
    }
    while (in->at < end) {
        const char *start = in->at;
        pass_plain(in, end, '\\');
        emit(in, field, start, (size_t)(in->at - start));
        if (in->at == end)
            break;
        const char *escape = escape_of(*in->at);
        if (escape != NULL && field->form == JSONB && *in->at != '\\')
            return 0; /* not as Postgres writes it */
        emit(in, field, escape == NULL ? in->at : escape, escape == NULL ? 1 : 2);
        in->at++;
    }
    return 1;
}

static int take_value(struct cursor *in, const struct field *field, const struct field *next)
{
    switch (field->form) {
    case NUMBER:
        return take_number(in, field);
    case FLOAT:
        return take_float(in, field);
    case BOOLEAN:
        return take_boolean(in, field);
    case STRING:
        return take_string(in, field);
    default:
        return take_document(in, field, next);
    }
}

/* Write the line of a state; returns whether it is of the usual form. */
static int write_line(const LineWriter *self, struct cursor *in)
{
    int has_written = 0;
    if (in->at == in->end || *in->at++ != '{')
        return 0;
    for (size_t number = 0; number < self->count; number++) {
        const struct field *field = &self->fields[number], *next = number + 1 < self->count ? field + 1 : NULL;
        if (number && (in->at == in->end || *in->at++ != ','))
            return 0;
        if (!begins_with(in, field->label, field->label_size))
            return 0;
        in->at += field->label_size;
        if (field->is_written && has_written)
            *in->out++ = '\t';
        has_written |= field->is_written;
        if (in->at == in->end || !take_value(in, field, next))
            return 0;
    }
    return in->end - in->at == 1 && *in->at == '}';
}

/* Write what another writer makes of a state. Returns 1; 0: it makes nothing of it; -1: an exception is set. */
static int write_other(struct buffer *lines, PyObject *other, PyObject *state)
{
    PyObject *line = PyObject_CallFunctionObjArgs(other, state, NULL);
    char *text;
    Py_ssize_t size;
    int written = line == NULL ? -1 : line != Py_None;
    if (written == 1) {
        if (PyBytes_AsStringAndSize(line, &text, &size) < 0 || !reserve(lines, (size_t)size + 1)) {
            written = -1;
        } else {
            memcpy(lines->data + lines->used, text, (size_t)size);
            lines->used += (size_t)size;
        }
    }
    Py_XDECREF(line);
    return written;
}

/* Write a state's line; returns as above. */
static int write_state(const LineWriter *self, struct buffer *lines, PyObject *other, PyObject *state)
{
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(state, &text, &size) < 0 || !reserve(lines, (size_t)size * MOST_GROWTH + 1))
        return -1;
    struct cursor in = {text, text + size, lines->data + lines->used};
    int written = write_line(self, &in);
    if (written)
        lines->used = (size_t)(in.out - lines->data);
    else
        written = write_other(lines, other, state);
    if (written == 1)
        lines->data[lines->used++] = '\n';
    return written;
}

PyDoc_STRVAR(
    write_doc,
    "write(states, other): lines, numbers\n\n"
    "The states' lines of COPY's text format. `other` writes the line of a state that is not of the usual form, without\n"
    "its end, or None: then the state's number is among the numbers.");

static PyObject *line_writer_write(PyObject *self, PyObject *arguments)
{
    PyObject *states, *other, *made = NULL;
    if (!PyArg_ParseTuple(arguments, "O!O", &PyList_Type, &states, &other))
        return NULL;
    struct buffer lines = {NULL, 0, 0};
    PyObject *numbers = PyList_New(0);
    int written = numbers == NULL ? -1 : 1;
    for (Py_ssize_t at = 0; written >= 0 && at < PyList_Size(states); at++) {
        PyObject *state = Py_NewRef(PyList_GetItem(states, at)); /* whatever `other` does to the list */
        written = write_state((LineWriter *)self, &lines, other, state);
        Py_DECREF(state);
        if (written == 0) {
            PyObject *number = PyLong_FromSsize_t(at);
            if (number == NULL || PyList_Append(numbers, number) < 0)
                written = -1;
            Py_XDECREF(number);
        }
    }
    if (written >= 0)
        made = Py_BuildValue("y#O", lines.data == NULL ? "" : lines.data, (Py_ssize_t)lines.used, numbers);
    Py_XDECREF(numbers);
    clear(&lines);
    return made;
}

static void line_writer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((LineWriter *)self)->fields);
    Py_XDECREF(((LineWriter *)self)->given);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int set_fields(LineWriter *self, PyObject *given)
{
    Py_ssize_t count = PyTuple_Size(given), documents = 0;
    self->fields = PyMem_Calloc((size_t)count + 1, sizeof *self->fields);
    if (self->fields == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    self->given = Py_NewRef(given);
    self->count = (size_t)count;
    for (Py_ssize_t number = 0; number < count; number++) {
        struct field *field = &self->fields[number];
        Py_ssize_t size;
        char form;
        if (!PyArg_ParseTuple(PyTuple_GetItem(given, number), "y#cp", &field->label, &size, &form, &field->is_written))
            return 0;
        documents += form == JSON;
        if (size < 3 || form == 0 || strchr("nfbsJj", form) == NULL || documents > 1) {
            PyErr_SetString(PyExc_ValueError, "a field has no label or another form, or is a second json");
            return 0;
        }
        field->label_size = (size_t)size;
        field->form = (unsigned char)form;
    }
    return 1;
}

static PyObject *line_writer_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(names))
{
    PyObject *fields;
    if (!PyArg_ParseTuple(arguments, "O!", &PyTuple_Type, &fields))
        return NULL;
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL && !set_fields((LineWriter *)self, fields))
        Py_CLEAR(self);
    return self;
}

static PyMethodDef line_writer_methods[] = {
    {"write", line_writer_write, METH_VARARGS, write_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    line_writer_doc,
    "LineWriter(fields)\n\n"
    "fields: for each field of the states (its name as JSON text with a colon, the letter of its form, is it written).");

static PyType_Slot line_writer_slots[] = {
    {Py_tp_doc, (void *)line_writer_doc},
    {Py_tp_new, line_writer_new},
    {Py_tp_dealloc, line_writer_dealloc},
    {Py_tp_methods, line_writer_methods},
    {0, NULL},
};

static PyType_Spec line_writer_spec = {
    "sinks._entries.LineWriter", sizeof(LineWriter), 0, Py_TPFLAGS_DEFAULT, line_writer_slots};

/* --- the module -----------------------------------------------------------------------------------------------------*/

static int add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static int fill_module(PyObject *module)
{
    PyType_Spec *specs[] = {&line_writer_spec, &entries_spec, &replies_spec};
    for (size_t at = 0; at < sizeof specs / sizeof *specs; at++)
        if (add_type(module, specs[at]) < 0)
            return -1;
    return PyModule_AddIntConstant(module, "INTERFACE", 2); /* transforms/accelerator.py */
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_entries", "Entries on their way to a replica, compiled.", 0, NULL, module_slots,
    NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__entries(void)
{
    return PyModuleDef_Init(&module);
}

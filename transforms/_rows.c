/* Rows as JSON text: the compiled counterpart of transforms.shapes.

What a value becomes is defined by the explicit encoder (transforms/encoder.py, transforms/values.py). This file writes
the same bytes for rows that hold nothing unusual, and answers None ("not mine") for every other one: values that were
not sent, a key that is NULL, NaN, years before Christ, JSON that must travel as a string, text that is not UTF-8,
anything malformed. The caller gives those to the explicit encoder, so there is one place where semantics, and errors,
are defined.

Bytes are not trusted: every length is compared with what is left before it is used. Only the stable ABI is used.
*/

#include "_rows.h"

/* --- bytes that grow ----------------------------------------------------------------------------------------------- */

int reserve(struct buffer *out, size_t more)
{
    if (out->size - out->used >= more)
        return 1;
    size_t size = out->size ? out->size : 1024;
    while (size - out->used < more) {
        if (size > PY_SSIZE_T_MAX / 2) {
            PyErr_NoMemory();
            return 0;
        }
        size *= 2;
    }
    unsigned char *data = PyMem_Realloc(out->data, size);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    out->data = data;
    out->size = size;
    return 1;
}

/* --- letters --------------------------------------------------------------------------------------------------------*/

enum { NUMBER_LETTER = 1, FLOAT_LETTER = 2, TIME_LETTER = 4, PLAIN_LETTER = 8, CLEAN_LETTER = 16 };

static unsigned char letters[256];

static void mark(const char *which, unsigned char kind)
{
    for (; *which; which++)
        letters[(unsigned char)*which] |= kind;
}

static void fill_letters(void)
{
    mark("0123456789-", NUMBER_LETTER);
    mark("0123456789.e+-", FLOAT_LETTER);
    mark("0123456789-:.", TIME_LETTER);
    for (int byte = 0x20; byte < 0x80; byte++)
        if (byte != '"' && byte != '\\')
            letters[byte] |= byte < 0x7f ? PLAIN_LETTER | CLEAN_LETTER : CLEAN_LETTER;
}

static int all_are(Text text, size_t size, unsigned char kind)
{
    unsigned char common = kind;
    for (size_t at = 0; at < size; at++)
        common &= letters[text[at]];
    return common == kind;
}

/* How many bytes from the first on need no escape and are ASCII. */
static size_t clean_size(Text text, size_t size)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    size_t at = 0;
    for (; size - at >= 8; at += 8) { /* eight at a time: a high bit is set where one of them is special */
        uint64_t eight;
        memcpy(&eight, text + at, 8);
        uint64_t quote = eight ^ (ones * '"'), backslash = eight ^ (ones * '\\');
        uint64_t special = eight | (eight - ones * 0x20) | (quote - ones) | (backslash - ones);
        if (special & highs)
            break;
    }
    while (at < size && letters[text[at]] & CLEAN_LETTER)
        at++;
    return at;
}

/* The size of the one character of UTF-8 that begins here with a byte >= 0x80; 0: it is none.
Source: The Unicode Standard, table 3-7. */
static size_t character_size(Text text, size_t size)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    size_t needed;
    if (first >= 0xc2 && first <= 0xdf)
        needed = 2;
    else if (first >= 0xe0 && first <= 0xef)
        needed = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        needed = 4;
    else
        return 0;
    if (size < needed)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f; /* no surrogates */
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t at = 2; at < needed; at++)
        if ((text[at] & 0xc0) != 0x80)
            return 0;
    return needed;
}

/* --- values ---------------------------------------------------------------------------------------------------------*/

/* How a value is written: transforms.column_type.Form. CALL: by a Python function. CONSTANT: as any other one is. */
enum form {
    NUMBER = 'n',
    FLOAT = 'f',
    BOOLEAN = 'b',
    JSON = 'j',
    JSONB = 'J',
    TIMESTAMP = 't',
    TIMESTAMPTZ = 'z',
    BYTEA = 'x',
    PLAIN = 'p',
    TEXT = 's',
    CALL = 'c',
    CONSTANT = 'k'
};

struct value {
    Text text; /* NULL for SQL's NULL */
    size_t size;
};

/* Stands for a value that was not sent. */
static const unsigned char unchanged[1];

static enum outcome put_quoted(struct buffer *out, Text text, size_t size)
{
    if (!reserve(out, size + 2))
        return FAILED;
    put_byte(out, '"');
    put(out, text, size);
    put_byte(out, '"');
    return DONE;
}

/* The same escapes as orjson's. */
static enum outcome put_text(struct buffer *out, Text text, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    if (!reserve(out, size + 2))
        return FAILED;
    put_byte(out, '"');
    for (size_t at = 0;;) {
        size_t clean = clean_size(text + at, size - at);
        if (!reserve(out, size - at + 8))
            return FAILED;
        put(out, text + at, clean);
        at += clean;
        if (at == size)
            break;
        unsigned char byte = text[at];
        if (byte >= 0x80) {
            size_t one = character_size(text + at, size - at);
            if (!one)
                return NOT_MINE;
            put(out, text + at, one);
            at += one;
            continue;
        }
        static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
        const char *found = byte ? shorts : NULL;
        while (found && *found && (unsigned char)*found != byte)
            found += 2;
        put_byte(out, '\\');
        if (found && *found)
            put_byte(out, (unsigned char)found[1]);
        else {
            put(out, "u00", 3);
            put_byte(out, (unsigned char)hex[byte >> 4]);
            put_byte(out, (unsigned char)hex[byte & 15]);
        }
        at++;
    }
    put_byte(out, '"'); /* the room for it came with that for the last letters */
    return DONE;
}

static int is_space(unsigned char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* A document is spliced in as it is, if nothing hinders it; see transforms.values.must_be_quoted. */
static enum outcome put_document(struct buffer *out, Text text, size_t size, int is_jsonb)
{
    if (size == 0 || (size == 4 && memcmp(text, "null", 4) == 0))
        return NOT_MINE;
    if (!is_jsonb && (is_space(text[0]) || text[0] == '"' || is_space(text[size - 1])))
        return NOT_MINE;
    for (size_t at = 0; at < size;) {
        at += clean_size(text + at, size - at);
        if (at == size)
            break;
        if (text[at] >= 0x80) {
            size_t one = character_size(text + at, size - at);
            if (!one)
                return NOT_MINE;
            at += one;
        } else {
            if (!is_jsonb && text[at] == '\\' && size - at > 1 && text[at + 1] == 'u')
                return NOT_MINE;
            at++;
        }
    }
    if (!reserve(out, size))
        return FAILED;
    put(out, text, size);
    return DONE;
}

/* `2026-01-31 12:00:00.5`, and `+00` behind it where there is a zone. */
static enum outcome put_timestamp(struct buffer *out, Text text, size_t size, int has_zone)
{
    size_t end = size;
    if (has_zone) {
        if (size < 3 || memcmp(text + size - 3, "+00", 3) != 0)
            return NOT_MINE;
        end -= 3;
    }
    if (end < 12 || text[10] != ' ' || !all_are(text, 10, NUMBER_LETTER) || !all_are(text + 11, end - 11, TIME_LETTER))
        return NOT_MINE;
    if (!reserve(out, size + 3))
        return FAILED;
    put_byte(out, '"');
    put(out, text, 10);
    put_byte(out, 'T');
    put(out, text + 11, end - 11);
    if (has_zone)
        put_byte(out, 'Z');
    put_byte(out, '"');
    return DONE;
}

/* After an exception in a Python function. */
static enum outcome not_mine_if_wrong_value(void)
{
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_IndexError))
        return FAILED;
    PyErr_Clear(); /* not UTF-8, say: the explicit encoder tells */
    return NOT_MINE;
}

static enum outcome put_called(struct buffer *out, Text text, size_t size, PyObject *encode)
{
    PyObject *value = PyBytes_FromStringAndSize((const char *)text, (Py_ssize_t)size);
    if (value == NULL)
        return FAILED;
    PyObject *encoded = PyObject_CallFunctionObjArgs(encode, value, NULL);
    Py_DECREF(value);
    if (encoded == NULL)
        return not_mine_if_wrong_value();
    char *bytes;
    Py_ssize_t length;
    enum outcome outcome = FAILED;
    if (PyBytes_AsStringAndSize(encoded, &bytes, &length) == 0 && reserve(out, (size_t)length)) {
        put(out, bytes, (size_t)length);
        outcome = DONE;
    }
    Py_DECREF(encoded);
    return outcome;
}

static enum outcome put_constant(struct buffer *out, PyObject *constant)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(constant, &bytes, &size) < 0 || !reserve(out, (size_t)size))
        return FAILED;
    put(out, bytes, (size_t)size);
    return DONE;
}

static enum outcome put_value(struct buffer *out, Text text, size_t size, unsigned char form, PyObject *encode)
{
    switch (form) {
    case NUMBER:
    case FLOAT:
        if (size == 0 || !all_are(text, size, form == NUMBER ? NUMBER_LETTER : FLOAT_LETTER))
            return NOT_MINE;
        if (!reserve(out, size))
            return FAILED;
        put(out, text, size);
        return DONE;
    case BOOLEAN:
        if (size != 1 || (text[0] != 't' && text[0] != 'f'))
            return NOT_MINE;
        if (!reserve(out, 5))
            return FAILED;
        if (text[0] == 't')
            put(out, "true", 4);
        else
            put(out, "false", 5);
        return DONE;
    case TIMESTAMP:
    case TIMESTAMPTZ:
        return put_timestamp(out, text, size, form == TIMESTAMPTZ);
    case BYTEA:
        if (size < 2 || text[0] != '\\' || !all_are(text + 1, size - 1, PLAIN_LETTER))
            return NOT_MINE;
        return put_text(out, text, size);
    case PLAIN:
        return all_are(text, size, PLAIN_LETTER) ? put_quoted(out, text, size) : NOT_MINE;
    case JSON:
    case JSONB:
        return put_document(out, text, size, form == JSONB);
    case TEXT:
        return put_text(out, text, size);
    case CALL:
        return put_called(out, text, size, encode);
    case CONSTANT:
        return put_constant(out, encode);
    }
    return NOT_MINE;
}

/* --- the plan of a relation -----------------------------------------------------------------------------------------*/

/* The most columns of a table are 1,600; a tuple's values are kept on the stack. */
enum { MOST_COLUMNS = 1664 };

struct field {
    size_t place;    /* of its column in the relation */
    PyObject *label; /* its name as JSON text, and a colon */
    Text label_text;
    size_t label_size;
};

struct fields {
    struct field *all;
    size_t count;
};

struct plan {
    PyObject_HEAD
    size_t width;         /* of the relation */
    unsigned char *forms; /* of each column */
    PyObject **encoders;  /* of each column; NULL but for CALL, and the bytes of a CONSTANT */
    struct fields state, key;
    size_t *judged; /* the places of the columns that the judge is shown */
    size_t judged_count;
    PyObject *judge, *absent; /* whether a row is wanted, and what makes something of the key where not; NULL: all are */
};

static void clear_fields(struct fields *fields)
{
    for (size_t at = 0; at < fields->count; at++)
        Py_XDECREF(fields->all[at].label);
    PyMem_Free(fields->all);
}

static void plan_dealloc(PyObject *self)
{
    Plan *plan = (Plan *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (size_t at = 0; plan->encoders != NULL && at < plan->width; at++)
        Py_XDECREF(plan->encoders[at]);
    PyMem_Free(plan->encoders);
    PyMem_Free(plan->forms);
    PyMem_Free(plan->judged);
    Py_XDECREF(plan->judge);
    Py_XDECREF(plan->absent);
    clear_fields(&plan->state);
    clear_fields(&plan->key);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* From a tuple of (place, label). */
static int set_fields(const Plan *plan, struct fields *fields, PyObject *given)
{
    Py_ssize_t count = PyTuple_Size(given);
    if (count < 0)
        return 0;
    fields->all = PyMem_Calloc((size_t)count + 1, sizeof *fields->all);
    if (fields->all == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        struct field *field = &fields->all[at];
        Py_ssize_t place;
        char *label;
        Py_ssize_t size;
        PyObject *pair = PyTuple_GetItem(given, at);
        if (pair == NULL || !PyArg_ParseTuple(pair, "nS", &place, &field->label)) {
            field->label = NULL;
            return 0;
        }
        Py_INCREF(field->label);
        fields->count++;
        if (place < 0 || (size_t)place >= plan->width) {
            PyErr_SetString(PyExc_ValueError, "a field's place is not in the relation");
            return 0;
        }
        if (PyBytes_AsStringAndSize(field->label, &label, &size) < 0)
            return 0;
        field->place = (size_t)place;
        field->label_text = (Text)label;
        field->label_size = (size_t)size;
    }
    return 1;
}

static int set_columns(Plan *plan, PyObject *columns)
{
    Py_ssize_t width = PyTuple_Size(columns);
    if (width < 0)
        return 0;
    if (width > MOST_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "the relation has too many columns");
        return 0;
    }
    plan->forms = PyMem_Calloc((size_t)width + 1, 1);
    plan->encoders = PyMem_Calloc((size_t)width + 1, sizeof *plan->encoders);
    if (plan->forms == NULL || plan->encoders == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    plan->width = (size_t)width;
    for (Py_ssize_t at = 0; at < width; at++) {
        PyObject *column = PyTuple_GetItem(columns, at);
        if (PyBytes_Check(column) && PyBytes_Size(column) == 1) {
            plan->forms[at] = (unsigned char)PyBytes_AsString(column)[0];
        } else if (PyTuple_Check(column)) {
            PyObject *constant;
            if (!PyArg_ParseTuple(column, "S", &constant))
                return 0;
            plan->forms[at] = CONSTANT;
            plan->encoders[at] = Py_NewRef(constant);
        } else if (PyCallable_Check(column)) {
            plan->forms[at] = CALL;
            plan->encoders[at] = Py_NewRef(column);
        } else {
            PyErr_SetString(PyExc_TypeError, "a column is neither a form's letter, nor a function, nor a constant");
            return 0;
        }
        if ((plan->forms[at] == CALL || plan->forms[at] == CONSTANT) && plan->encoders[at] == NULL) {
            PyErr_SetString(PyExc_ValueError, "that letter is taken");
            return 0;
        }
    }
    return 1;
}

static int set_judge(Plan *plan, PyObject *places, PyObject *judge, PyObject *absent)
{
    Py_ssize_t count = PyTuple_Size(places);
    if (count < 0)
        return 0;
    plan->judged = PyMem_Calloc((size_t)count + 1, sizeof *plan->judged);
    if (plan->judged == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        size_t place = PyLong_AsSize_t(PyTuple_GetItem(places, at));
        if (PyErr_Occurred())
            return 0;
        if (place >= plan->width) {
            PyErr_SetString(PyExc_ValueError, "a judged place is not in the relation");
            return 0;
        }
        plan->judged[plan->judged_count++] = place;
    }
    if (judge != Py_None) {
        plan->judge = Py_NewRef(judge);
        plan->absent = Py_NewRef(absent);
    }
    return 1;
}

static PyObject *plan_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(names))
{
    PyObject *columns, *state, *key, *places, *judge, *absent;
    if (!PyArg_ParseTuple(
            arguments, "O!O!O!O!OO", &PyTuple_Type, &columns, &PyTuple_Type, &state, &PyTuple_Type, &key, &PyTuple_Type,
            &places, &judge, &absent))
        return NULL;
    Plan *plan = (Plan *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (plan == NULL)
        return NULL;
    if (!set_columns(plan, columns) || !set_fields(plan, &plan->state, state) || !set_fields(plan, &plan->key, key) ||
        !set_judge(plan, places, judge, absent)) {
        Py_DECREF(plan);
        return NULL;
    }
    return (PyObject *)plan;
}

/* --- rows -----------------------------------------------------------------------------------------------------------*/

/* Find the values of the TupleData at `at`; transforms/tuple_data.py tells its form. `end`: the offset behind it. */
static enum outcome find_values(const Plan *plan, Text data, size_t size, size_t at, struct value *values, size_t *end)
{
    if (at > size || size - at < 2 || ((size_t)data[at] << 8 | data[at + 1]) != plan->width)
        return NOT_MINE;
    at += 2;
    for (size_t place = 0; place < plan->width; place++) {
        if (at == size)
            return NOT_MINE;
        unsigned char kind = data[at++];
        values[place].size = 0;
        if (kind == 't') {
            if (size - at < 4)
                return NOT_MINE;
            size_t length = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
            at += 4;
            if (length > size - at)
                return NOT_MINE;
            values[place].text = data + at;
            values[place].size = length;
            at += length;
        } else if (kind == 'n') {
            values[place].text = NULL;
        } else if (kind == 'u') {
            values[place].text = unchanged;
        } else {
            return NOT_MINE;
        }
    }
    *end = at;
    return DONE;
}

/* Write a JSON object of some of the values. */
static enum outcome put_object(
    const Plan *plan, const struct fields *fields, const struct value *values, int nulls, struct buffer *out)
{
    if (!reserve(out, 2))
        return FAILED;
    put_byte(out, '{');
    for (size_t at = 0; at < fields->count; at++) {
        const struct field *field = &fields->all[at];
        const struct value *value = &values[field->place];
        if ((value->text == unchanged && plan->forms[field->place] != CONSTANT) || (value->text == NULL && !nulls))
            return NOT_MINE;
        if (!reserve(out, field->label_size + 5))
            return FAILED;
        if (at)
            put_byte(out, ',');
        put(out, field->label_text, field->label_size);
        if (value->text == NULL) {
            put(out, "null", 4);
            continue;
        }
        enum outcome outcome =
            put_value(out, value->text, value->size, plan->forms[field->place], plan->encoders[field->place]);
        if (outcome != DONE)
            return outcome;
    }
    if (!reserve(out, 1))
        return FAILED;
    put_byte(out, '}');
    return DONE;
}

/* DONE: the row is wanted; ABSENT: it is not. */
static enum outcome judge(const Plan *plan, const struct value *values)
{
    if (plan->judge == NULL)
        return DONE;
    PyObject *shown = PyTuple_New((Py_ssize_t)plan->judged_count);
    if (shown == NULL)
        return FAILED;
    for (size_t at = 0; at < plan->judged_count; at++) {
        const struct value *value = &values[plan->judged[at]];
        if (value->text == unchanged) {
            Py_DECREF(shown);
            return NOT_MINE;
        }
        PyObject *text = value->text == NULL
                             ? Py_NewRef(Py_None)
                             : PyBytes_FromStringAndSize((const char *)value->text, (Py_ssize_t)value->size);
        if (text == NULL || PyTuple_SetItem(shown, (Py_ssize_t)at, text) < 0) {
            Py_DECREF(shown);
            return FAILED;
        }
    }
    PyObject *verdict = PyObject_CallFunctionObjArgs(plan->judge, shown, NULL);
    Py_DECREF(shown);
    if (verdict == NULL)
        return not_mine_if_wrong_value();
    enum outcome outcome = verdict == Py_True ? DONE : ABSENT;
    Py_DECREF(verdict);
    return outcome;
}

/* Key and state, of values that were found; the key alone where the row is ABSENT. */
static enum outcome put_row(const Plan *plan, const struct value *values, struct buffer *key, struct buffer *state)
{
    enum outcome judged = judge(plan, values);
    if (judged != DONE && judged != ABSENT)
        return judged;
    enum outcome outcome = put_object(plan, &plan->key, values, 0, key);
    if (outcome != DONE || judged == ABSENT)
        return outcome == DONE ? judged : outcome;
    return put_object(plan, &plan->state, values, 1, state);
}

enum outcome encode_tuple(
    const Plan *plan, Text data, size_t size, size_t at, struct buffer *key, struct buffer *state)
{
    struct value values[MOST_COLUMNS];
    size_t end;
    if (find_values(plan, data, size, at, values, &end) != DONE || end != size)
        return NOT_MINE;
    return put_row(plan, values, key, state);
}

/* What a row is to Python. */
static PyObject *row_object(const Plan *plan, enum outcome outcome, const struct buffer *key, const struct buffer *state)
{
    if (outcome == ABSENT)
        return PyObject_CallFunction(plan->absent, "y#", key->data, (Py_ssize_t)key->used);
    return Py_BuildValue("y#y#", key->data, (Py_ssize_t)key->used, state->data, (Py_ssize_t)state->used);
}

/* Take (bytes, offset); an offset that is not in the bytes becomes one behind them. */
static int data_and_offset(PyObject *const *arguments, Py_ssize_t count, Text *data, size_t *size, size_t *at)
{
    char *bytes;
    Py_ssize_t length;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected bytes and an offset");
        return 0;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &bytes, &length) < 0)
        return 0;
    Py_ssize_t offset = PyLong_AsSsize_t(arguments[1]);
    if (offset == -1 && PyErr_Occurred())
        return 0;
    *data = (Text)bytes;
    *size = (size_t)length;
    *at = offset < 0 || offset > length ? (size_t)length : (size_t)offset;
    return 1;
}

PyDoc_STRVAR(
    row_doc,
    "row(data, at): (key, state) of the tuple at `at`, which reaches to the end, or what `absent` makes of the key of a row\n"
    "that the judge does not want; None: not mine.");

static PyObject *plan_row(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Text data;
    size_t size, at;
    struct buffer key = {0}, state = {0};
    if (!data_and_offset(arguments, count, &data, &size, &at))
        return NULL;
    enum outcome outcome = encode_tuple((const Plan *)self, data, size, at, &key, &state);
    PyObject *result = NULL;
    if (outcome == DONE || outcome == ABSENT)
        result = row_object((const Plan *)self, outcome, &key, &state);
    else if (outcome == NOT_MINE)
        result = Py_NewRef(Py_None);
    PyMem_Free(key.data);
    PyMem_Free(state.data);
    return result;
}

PyDoc_STRVAR(key_doc, "key(data, at): (key, end) of the tuple at `at`, and the offset behind it; None: not mine.");

static PyObject *plan_key(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    const Plan *plan = (const Plan *)self;
    Text data;
    size_t size, at, end;
    struct value values[MOST_COLUMNS];
    struct buffer key = {0};
    if (!data_and_offset(arguments, count, &data, &size, &at))
        return NULL;
    if (find_values(plan, data, size, at, values, &end) != DONE)
        Py_RETURN_NONE;
    enum outcome outcome = put_object(plan, &plan->key, values, 0, &key);
    PyObject *result = NULL;
    if (outcome == DONE)
        result = Py_BuildValue("y#n", key.data, (Py_ssize_t)key.used, (Py_ssize_t)end);
    else if (outcome == NOT_MINE)
        result = Py_NewRef(Py_None);
    PyMem_Free(key.data);
    return result;
}

PyDoc_STRVAR(held_doc, "held(data, at): whether the judge wants the row of the tuple at `at`; None: not mine.");

static PyObject *plan_held(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    const Plan *plan = (const Plan *)self;
    Text data;
    size_t size, at, end;
    struct value values[MOST_COLUMNS];
    if (!data_and_offset(arguments, count, &data, &size, &at))
        return NULL;
    if (find_values(plan, data, size, at, values, &end) != DONE)
        Py_RETURN_NONE;
    enum outcome outcome = judge(plan, values);
    if (outcome == FAILED)
        return NULL;
    return Py_NewRef(outcome == NOT_MINE ? Py_None : outcome == DONE ? Py_True : Py_False);
}

/* --- lines of COPY's text format ------------------------------------------------------------------------------------*/

/* Take COPY's escapes away, in place. */
static enum outcome unescape(unsigned char *text, size_t *size)
{
    static const char escapes[] = "b\bf\fn\nr\rt\tv\v\\\\";
    size_t used = 0;
    for (size_t at = 0; at < *size; at++) {
        if (text[at] != '\\') {
            text[used++] = text[at];
            continue;
        }
        if (++at == *size || text[at] == 0)
            return NOT_MINE;
        const char *found = escapes;
        while (*found && (unsigned char)*found != text[at])
            found += 2;
        if (!*found)
            return NOT_MINE;
        text[used++] = (unsigned char)found[1];
    }
    *size = used;
    return DONE;
}

/* Find the values of a line; `copy` is one of the line that may be changed. */
static enum outcome find_line_values(const Plan *plan, unsigned char *copy, size_t size, struct value *values)
{
    if (size == 0 || copy[size - 1] != '\n')
        return NOT_MINE;
    unsigned char *text = copy, *line_end = copy + size - 1;
    for (size_t place = 0; place < plan->width; place++) {
        unsigned char *end = memchr(text, '\t', (size_t)(line_end - text));
        if ((end == NULL) != (place == plan->width - 1))
            return NOT_MINE;
        if (end == NULL)
            end = line_end;
        size_t length = (size_t)(end - text);
        values[place].text = text;
        if (length == 2 && text[0] == '\\' && text[1] == 'N')
            values[place].text = NULL;
        else if (memchr(text, '\\', length) != NULL && unescape(text, &length) != DONE)
            return NOT_MINE;
        values[place].size = length;
        text = end + 1;
    }
    return plan->width ? DONE : NOT_MINE;
}

PyDoc_STRVAR(
    lines_doc,
    "lines(texts, first): as `row`, of each row in COPY's text format, with its line's end, from number `first` of the list\n"
    "on. Ends before the first that is not mine.");

/* The buffers that the rows of a call share. */
struct line_buffers {
    struct buffer copy, key, state;
};

/* Append the row of a text to `rows`. */
static enum outcome add_line(PyObject *rows, const Plan *plan, PyObject *given, struct line_buffers *buffers)
{
    char *text;
    Py_ssize_t size;
    struct value values[MOST_COLUMNS];
    buffers->copy.used = buffers->key.used = buffers->state.used = 0;
    if (PyBytes_AsStringAndSize(given, &text, &size) < 0 || !reserve(&buffers->copy, (size_t)size))
        return FAILED;
    memcpy(buffers->copy.data, text, (size_t)size);
    enum outcome outcome = find_line_values(plan, buffers->copy.data, (size_t)size, values);
    if (outcome == DONE)
        outcome = put_row(plan, values, &buffers->key, &buffers->state);
    if (outcome != DONE && outcome != ABSENT)
        return outcome;
    PyObject *row = row_object(plan, outcome, &buffers->key, &buffers->state);
    int failed = row == NULL || PyList_Append(rows, row) < 0;
    Py_XDECREF(row);
    return failed ? FAILED : DONE;
}

static PyObject *plan_lines(PyObject *self, PyObject *arguments)
{
    PyObject *texts, *rows;
    Py_ssize_t at;
    struct line_buffers buffers = {0};
    if (!PyArg_ParseTuple(arguments, "O!n", &PyList_Type, &texts, &at))
        return NULL;
    if (at < 0) {
        PyErr_SetString(PyExc_ValueError, "an offset is negative");
        return NULL;
    }
    if ((rows = PyList_New(0)) == NULL)
        return NULL;
    enum outcome outcome = DONE;
    for (; outcome == DONE && at < PyList_Size(texts); at++) {
        PyObject *text = Py_NewRef(PyList_GetItem(texts, at)); /* an encoder in Python may do anything, to the list too */
        outcome = add_line(rows, (const Plan *)self, text, &buffers);
        Py_DECREF(text);
    }
    PyMem_Free(buffers.copy.data);
    PyMem_Free(buffers.key.data);
    PyMem_Free(buffers.state.data);
    if (outcome == FAILED)
        Py_CLEAR(rows);
    return rows;
}

/* --- the module -----------------------------------------------------------------------------------------------------*/

static PyMethodDef plan_methods[] = {
    {"row", (PyCFunction)(void (*)(void))plan_row, METH_FASTCALL, row_doc},
    {"key", (PyCFunction)(void (*)(void))plan_key, METH_FASTCALL, key_doc},
    {"held", (PyCFunction)(void (*)(void))plan_held, METH_FASTCALL, held_doc},
    {"lines", plan_lines, METH_VARARGS, lines_doc},
    {"upserts", plan_upserts, METH_VARARGS, upserts_doc},
    {"transactions", plan_transactions, METH_VARARGS, transactions_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    plan_doc,
    "Plan(columns, state, key, judged, judge, absent)\n\n"
    "columns: for each column of the relation a form's letter (bytes), the function that encodes its values, or in a tuple\n"
    "the JSON text of any of them but NULL, also of one that was not sent.\n"
    "state, key: for each field (place of its column, its name as JSON text with a colon).\n"
    "judged: the places of the columns whose texts the judge is given as a tuple; it says True of rows that are wanted.\n"
    "None: all are. absent: makes of the key of a row that is not wanted what stands for it.");

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, (void *)plan_doc},
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {0, NULL},
};

static PyType_Spec plan_spec = {"transforms._rows.Plan", sizeof(Plan), 0, Py_TPFLAGS_DEFAULT, plan_slots};

static int fill_module(PyObject *module)
{
    fill_letters();
    PyObject *type = PyType_FromModuleAndSpec(module, &plan_spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed ? failed : PyModule_AddIntConstant(module, "INTERFACE", 4); /* transforms/accelerator.py */
}

static PyMethodDef module_functions[] = {
    {"found", found, METH_VARARGS, found_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rows", "Rows as JSON text, compiled.", 0, module_functions, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void)
{
    return PyModuleDef_Init(&module);
}

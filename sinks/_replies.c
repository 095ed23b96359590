/* Redis' answers to a sink that reads a stream: entries stay in the bytes that came until one is asked for, for most
   of their words are the same in all of them, and an object for each costs more than anything else that a sink does.

   Source of the form: https://redis.io/docs/latest/develop/reference/protocol-spec/. What is no usual answer is left to
   redis-py, which alone says what an error is. Nothing is assumed of what entries hold. Only the stable ABI is used.
*/

#include "_entries.h"

struct span {
    size_t at, size;
};

/* An entry in one of several texts. */
struct entry {
    size_t text, start, end;          /* the text's number, and where in it */
    struct span id, type, key, state; /* all but the id only of a plain one */
    int is_plain, is_end, is_odd;
};

/* What came from Redis in one go. */
struct text {
    PyObject *owner; /* NULL: who has this */
    const char *data;
};

/* --- reading --------------------------------------------------------------------------------------------------------*/

/* Of what was asked for: it is all there, some of it is, or it is something else. FAILED: a Python exception is set. */
enum got { WHOLE, PART, OTHER, FAILED };

struct input {
    const char *text;
    size_t at, used;
};

enum { MOST_DIGITS = 20, MOST_DEPTH = 8, MOST_PLAIN = 16 };

/* The end of the line that begins here, without its \r\n. */
static enum got find_line(const struct input *in, size_t *end)
{
    const char *found = memchr(in->text + in->at, '\r', in->used - in->at);
    if (found == NULL)
        return PART;
    *end = (size_t)(found - in->text);
    if (*end + 1 == in->used)
        return PART;
    return in->text[*end + 1] == '\n' ? WHOLE : OTHER;
}

/* A line that is this letter and a number. */
static enum got read_number(struct input *in, char letter, long long *number)
{
    size_t at = in->at, most = at + 2 + MOST_DIGITS;
    if (at == in->used)
        return PART;
    if (in->text[at++] != letter)
        return OTHER;
    int is_negative = at < in->used && in->text[at] == '-';
    at += (size_t)is_negative;
    long long value = 0;
    for (; at < in->used && at < most && in->text[at] >= '0' && in->text[at] <= '9'; at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, in->text[at] - '0', &value))
            return OTHER;
    if (at < in->used && (at == in->at + 1 + (size_t)is_negative))
        return OTHER;
    if (in->used - at < 2)
        return at == in->used || in->text[at] == '\r' ? PART : OTHER;
    if (in->text[at] != '\r' || in->text[at + 1] != '\n')
        return OTHER;
    *number = is_negative ? -value : value;
    in->at = at + 2;
    return WHOLE;
}

/* So many bytes, and the end of the line. */
static enum got pass_text(struct input *in, long long size)
{
    if (in->used - in->at < (size_t)size + 2)
        return PART;
    in->at += (size_t)size + 2;
    return in->text[in->at - 2] == '\r' && in->text[in->at - 1] == '\n' ? WHOLE : OTHER;
}

static enum got read_text(struct input *in, struct span *text)
{
    struct input ahead = *in;
    long long size;
    enum got got = read_number(&ahead, '$', &size);
    if (got != WHOLE)
        return got;
    *text = (struct span){ahead.at, (size_t)size};
    got = size < 0 ? OTHER : pass_text(&ahead, size);
    if (got == WHOLE)
        in->at = ahead.at;
    return got;
}

static int is_text(const struct input *in, struct span span, const char *text, size_t size)
{
    return span.size == size && memcmp(in->text + span.at, text, size) == 0;
}

/* Whether these are the words of an upsert without optional fields that say more than where it came from. */
static int is_plain(const struct input *in, const struct span *words, size_t count)
{
    if (count != 12 && count != 14 && count != 16)
        return 0;
    for (size_t at = 12; at < count; at += 2)
        if (!is_text(in, words[at], "end", 3) && !is_text(in, words[at], "origin", 6))
            return 0;
    return is_text(in, words[0], "op", 2) && is_text(in, words[1], "upsert", 6) && is_text(in, words[2], "type", 4) &&
           is_text(in, words[4], "key", 3) && is_text(in, words[6], "state", 5);
}

/* Whether an id is none that a reader gives: `<commit_lsn>-<n * 1000000 + slot>`, n from 1 on; see sinks.entries. */
static int is_odd_id(const char *id, size_t size)
{
    const char *dash = memchr(id, '-', size);
    size_t left = dash == NULL ? 0 : (size_t)(dash - id), right = size - left - 1;
    if (left == 0 || right < 7 || right > 18 || id[0] == '0' || dash[1] == '0')
        return 1;
    for (size_t at = 0; at < size; at++)
        if (at != left && (id[at] < '0' || id[at] > '9'))
            return 1;
    return 0;
}

/* An entry as far as it has arrived. */
struct progress {
    struct entry entry;
    long long words, word; /* how many it has, and which comes next */
    struct span plain[MOST_PLAIN], field;
};

static enum got begin_entry(struct input *in, struct progress *made)
{
    struct input ahead = *in;
    long long parts;
    enum got got = read_number(&ahead, '*', &parts);
    *made = (struct progress){.entry = {.start = in->at}};
    if (got == WHOLE && parts != 2)
        got = OTHER;
    if (got == WHOLE)
        got = read_text(&ahead, &made->entry.id);
    if (got == WHOLE)
        got = read_number(&ahead, '*', &made->words);
    if (got == WHOLE && made->words < 0)
        got = OTHER;
    if (got == WHOLE)
        in->at = ahead.at;
    return got;
}

/* Read on in the words of an entry. */
static enum got read_words(struct input *in, struct progress *made)
{
    struct span word;
    for (; made->word < made->words; made->word++) {
        enum got got = read_text(in, &word);
        if (got != WHOLE)
            return got;
        if (made->word < MOST_PLAIN)
            made->plain[made->word] = word;
        if (made->word % 2 == 0) {
            made->field = word;
            made->entry.is_end |= is_text(in, word, "origin", 6);
        } else {
            made->entry.is_end |= is_text(in, made->field, "end", 3) && is_text(in, word, "1", 1);
        }
    }
    return WHOLE;
}

static void end_entry(const struct input *in, struct progress *made)
{
    struct entry *entry = &made->entry;
    entry->end = in->at;
    entry->is_odd = is_odd_id(in->text + entry->id.at, entry->id.size);
    entry->is_plain = is_plain(in, made->plain, (size_t)made->words);
    if (entry->is_plain) {
        entry->type = made->plain[3];
        entry->key = made->plain[5];
        entry->state = made->plain[7];
    }
}

/* Pass any values, and those in them. `pending`: how many are still to come. */
static enum got skip(struct input *in, long long *pending)
{
    for (; *pending > 0; --*pending) {
        if (in->at == in->used)
            return PART;
        struct input ahead = *in;
        char letter = in->text[in->at];
        long long size = 0;
        size_t end;
        enum got got;
        if (strchr("$!=", letter) != NULL && letter != 0) {
            got = read_number(&ahead, letter, &size);
            if (got == WHOLE && size >= 0)
                got = pass_text(&ahead, size);
        } else if (strchr("*~>%", letter) != NULL && letter != 0) {
            got = read_number(&ahead, letter, &size);
            if (got == WHOLE && letter == '%' && __builtin_mul_overflow(size, 2, &size))
                got = OTHER;
            if (got == WHOLE && size > 0 && __builtin_add_overflow(*pending, size, pending))
                got = OTHER;
        } else if (strchr("+-:_,#(", letter) != NULL && letter != 0) {
            got = find_line(&ahead, &end);
            ahead.at = got == WHOLE ? end + 2 : ahead.at;
        } else {
            got = OTHER;
        }
        if (got != WHOLE)
            return got;
        in->at = ahead.at;
    }
    return WHOLE;
}

/* --- values ---------------------------------------------------------------------------------------------------------*/

static PyObject *bytes_of(const char *text, struct span span)
{
    return PyBytes_FromStringAndSize(text + span.at, (Py_ssize_t)span.size);
}

static PyObject *value_of(struct input *in, PyObject *refusal, int depth);

static PyObject *list_of(struct input *in, long long size, PyObject *refusal, int depth)
{
    PyObject *list = PyList_New(0);
    for (; list != NULL && size > 0; size--) {
        PyObject *value = value_of(in, refusal, depth);
        if (value == NULL || PyList_Append(list, value) < 0)
            Py_CLEAR(list);
        Py_XDECREF(value);
    }
    return list;
}

static PyObject *dict_of(struct input *in, long long size, PyObject *refusal, int depth)
{
    PyObject *dict = PyDict_New();
    for (; dict != NULL && size > 0; size--) {
        PyObject *key = value_of(in, refusal, depth), *value = key == NULL ? NULL : value_of(in, refusal, depth);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *refusal_of(struct input *in, PyObject *refusal)
{
    size_t start = in->at + 1, end;
    if (find_line(in, &end) != WHOLE)
        return NULL;
    in->at = end + 2;
    PyObject *text = PyUnicode_DecodeUTF8(in->text + start, (Py_ssize_t)(end - start), "replace");
    PyObject *made = text == NULL ? NULL : PyObject_CallFunctionObjArgs(refusal, text, NULL);
    Py_XDECREF(text);
    return made;
}

/* The value of an answer that is whole, as redis-py has it; of an error what `refusal` makes of its text. NULL without an
   exception: it is not a usual one. */
static PyObject *value_of(struct input *in, PyObject *refusal, int depth)
{
    if (in->at >= in->used || depth == MOST_DEPTH)
        return NULL;
    char letter = in->text[in->at];
    long long size;
    struct span text;
    switch (letter) {
    case '$':
        if (read_text(in, &text) == WHOLE)
            return bytes_of(in->text, text);
        if (read_number(in, '$', &size) != WHOLE)
            return NULL;
        Py_RETURN_NONE; /* it has no size */
    case ':':
        return read_number(in, ':', &size) == WHOLE ? PyLong_FromLongLong(size) : NULL;
    case '_':
        in->at += 3;
        Py_RETURN_NONE;
    case '-':
        return refusal == NULL ? NULL : refusal_of(in, refusal);
    case '*':
    case '%':
        if (read_number(in, letter, &size) != WHOLE)
            return NULL;
        if (size < 0)
            Py_RETURN_NONE;
        return letter == '*' ? list_of(in, size, refusal, depth + 1) : dict_of(in, size, refusal, depth + 1);
    default:
        return NULL;
    }
}

/* --- entries --------------------------------------------------------------------------------------------------------*/

/* Entries of one batch, a sequence of what redis-py would make of them; or some of those of another one. */
typedef struct {
    PyObject_HEAD
    PyObject *whole; /* those of which these are some; NULL: they are all */
    size_t first, count;
    struct buffer index; /* of struct entry */
    struct buffer texts; /* of struct text */
    struct buffer text;  /* the first of these, if it is its own */
} Entries;

static int append(struct buffer *to, const void *from, size_t size)
{
    if (!reserve(to, size))
        return 0;
    if (size)
        memcpy(to->data + to->used, from, size);
    to->used += size;
    return 1;
}

static const Entries *whole_of(const Entries *self)
{
    return self->whole == NULL ? self : (const Entries *)self->whole;
}

static const struct entry *entry_at(const Entries *self, size_t at)
{
    return (const struct entry *)(const void *)whole_of(self)->index.data + self->first + at;
}

static const char *text_of(const Entries *self, const struct entry *entry)
{
    return ((const struct text *)(const void *)whole_of(self)->texts.data)[entry->text].data;
}

static void entries_dealloc(PyObject *self)
{
    Entries *entries = (Entries *)self;
    PyTypeObject *type = Py_TYPE(self);
    const struct text *texts = (const struct text *)(const void *)entries->texts.data;
    for (size_t at = 0; at < entries->texts.used / sizeof *texts; at++)
        Py_XDECREF(texts[at].owner);
    clear(&entries->index);
    clear(&entries->texts);
    clear(&entries->text);
    Py_XDECREF(entries->whole);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static Py_ssize_t entries_length(PyObject *self)
{
    return (Py_ssize_t)((Entries *)self)->count;
}

/* (id, [field, value, ...]) */
static PyObject *entries_item(PyObject *self, Py_ssize_t at)
{
    const Entries *entries = (Entries *)self;
    if (at < 0 || (size_t)at >= entries->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such entry");
        return NULL;
    }
    const struct entry *entry = entry_at(entries, (size_t)at);
    struct input in = {text_of(entries, entry), entry->start, entry->end};
    long long size;
    read_number(&in, '*', &size);
    PyObject *id = value_of(&in, NULL, 0), *words = id == NULL ? NULL : value_of(&in, NULL, 0);
    PyObject *made = words == NULL ? NULL : PyTuple_Pack(2, id, words);
    Py_XDECREF(id);
    Py_XDECREF(words);
    return made;
}

static PyObject *entries_subscript(PyObject *self, PyObject *given)
{
    const Entries *entries = (Entries *)self;
    if (PyLong_Check(given)) {
        Py_ssize_t at = PyLong_AsSsize_t(given);
        if (at == -1 && PyErr_Occurred())
            return NULL;
        return entries_item(self, at < 0 ? at + (Py_ssize_t)entries->count : at);
    }
    Py_ssize_t start, stop, step;
    if (!PySlice_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "expected a number or a slice");
        return NULL;
    }
    if (PySlice_Unpack(given, &start, &stop, &step) < 0)
        return NULL;
    if (step != 1) {
        PyErr_SetString(PyExc_ValueError, "expected a slice without a step");
        return NULL;
    }
    Py_ssize_t count = PySlice_AdjustIndices((Py_ssize_t)entries->count, &start, &stop, step);
    Entries *made = (Entries *)PyType_GenericAlloc(Py_TYPE(self), 0);
    if (made == NULL)
        return NULL;
    made->whole = Py_NewRef((PyObject *)whole_of(entries));
    made->first = entries->first + (size_t)start;
    made->count = (size_t)count;
    return (PyObject *)made;
}

PyDoc_STRVAR(extend_doc, "extend(entries)\n\nAppend others, which hold none of these.");

static PyObject *entries_extend(PyObject *self, PyObject *given)
{
    Entries *entries = (Entries *)self;
    if (Py_TYPE(given) != Py_TYPE(self) || entries->whole != NULL || whole_of((Entries *)given) == entries) {
        PyErr_SetString(PyExc_TypeError, "expected entries, to be appended to whole ones");
        return NULL;
    }
    const Entries *others = (Entries *)given, *whole = whole_of(others);
    const struct text *texts = (const struct text *)(const void *)whole->texts.data;
    size_t known = entries->texts.used / sizeof *texts, count = whole->texts.used / sizeof *texts;
    for (size_t at = 0; at < count; at++)
        if (texts[at].owner == self) {
            PyErr_SetString(PyExc_TypeError, "expected entries that hold none of these");
            return NULL;
        }
    if (!reserve(&entries->texts, whole->texts.used) || !reserve(&entries->index, others->count * sizeof(struct entry)))
        return NULL;
    for (size_t at = 0; at < count; at++) {
        struct text text = {Py_NewRef(texts[at].owner == NULL ? (PyObject *)whole : texts[at].owner), texts[at].data};
        append(&entries->texts, &text, sizeof text); /* there is room */
    }
    for (size_t at = 0; at < others->count; at++) {
        struct entry entry = *entry_at(others, at);
        entry.text += known;
        append(&entries->index, &entry, sizeof entry);
    }
    entries->count += others->count;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(odd_id_doc, "odd_id(): bytes, or None\n\nThe first id that no reader gives.");

static PyObject *entries_odd_id(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const Entries *entries = (Entries *)self;
    for (size_t at = 0; at < entries->count; at++) {
        const struct entry *entry = entry_at(entries, at);
        if (entry->is_odd)
            return bytes_of(text_of(entries, entry), entry->id);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(size_doc, "size(): int\n\nHow many bytes the entries have.");

static PyObject *entries_size(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const Entries *entries = (Entries *)self;
    size_t size = 0;
    for (size_t at = 0; at < entries->count; at++)
        size += entry_at(entries, at)->end - entry_at(entries, at)->start;
    return PyLong_FromSize_t(size);
}

PyDoc_STRVAR(
    ended_doc, "ended(): int\n\nHow many entries there are up to the last one with `end` or `origin`; 0: none has it.");

static PyObject *entries_ended(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const Entries *entries = (Entries *)self;
    size_t count = entries->count;
    while (count && !entry_at(entries, count - 1)->is_end)
        count--;
    return PyLong_FromSize_t(count);
}

/* kept = (latest, behind): latest[key] = (id, key, state, *rest), as a tuple of the given type; behind has no such key.
 */
static int keep(const char *text, const struct entry *entry, PyObject *kept, PyTypeObject *change, PyObject *rest)
{
    PyObject *latest = PyTuple_GetItem(kept, 0), *behind = PyTuple_GetItem(kept, 1);
    if (latest == NULL || behind == NULL)
        return 0;
    PyObject *made = PyType_GenericAlloc(change, 6), *key = NULL;
    if (made == NULL)
        return 0;
    const struct span spans[] = {entry->id, entry->key, entry->state};
    int failed = 0;
    for (Py_ssize_t at = 0; at < 3 && !failed; at++) {
        PyObject *value = bytes_of(text, spans[at]);
        failed = value == NULL || PyTuple_SetItem(made, at, value) < 0;
        if (at == 1)
            key = value;
    }
    for (Py_ssize_t at = 0; at < 3 && !failed; at++)
        failed = PyTuple_SetItem(made, at + 3, Py_NewRef(PyTuple_GetItem(rest, at))) < 0;
    failed = failed || PyDict_SetItem(latest, key, made) < 0;
    if (!failed && PyDict_Size(behind) && PyDict_Contains(behind, key) == 1)
        failed = PyDict_DelItem(behind, key) < 0;
    Py_DECREF(made);
    return !failed;
}

PyDoc_STRVAR(
    take_plain_doc,
    "take_plain(first, kept, change, rest): where it ended\n\n"
    "See sinks.entries.Entries.take_plain.");

static PyObject *entries_take_plain(PyObject *self, PyObject *arguments)
{
    const Entries *entries = (Entries *)self;
    PyObject *kept, *change, *rest, *of_type = NULL;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(
            arguments, "nO!O!O!", &first, &PyDict_Type, &kept, &PyType_Type, &change, &PyTuple_Type, &rest))
        return NULL;
    if (first < 0 || PyTuple_Size(rest) != 3 || !PyType_IsSubtype((PyTypeObject *)change, &PyTuple_Type)) {
        PyErr_SetString(PyExc_ValueError, "expected an offset, a type of tuples, and three values");
        return NULL;
    }
    const char *of_text = NULL;
    struct span of = {0, 0}; /* the type whose changes `of_type` are */
    size_t at = (size_t)first;
    for (; at < entries->count; at++) {
        const struct entry *entry = entry_at(entries, at);
        if (!entry->is_plain)
            break;
        const char *text = text_of(entries, entry);
        if (of_text == NULL || of.size != entry->type.size ||
            memcmp(of_text + of.at, text + entry->type.at, of.size) != 0) {
            PyObject *type = bytes_of(text, entry->type);
            of_type = type == NULL ? NULL : PyDict_GetItemWithError(kept, type);
            Py_XDECREF(type);
            if (of_type == NULL && PyErr_Occurred())
                return NULL;
            of_text = text;
            of = entry->type;
        }
        if (of_type != NULL && !keep(text, entry, of_type, (PyTypeObject *)change, rest))
            return NULL;
    }
    return PyLong_FromSize_t(at);
}

static PyMethodDef entries_methods[] = {
    {"extend", entries_extend, METH_O, extend_doc},
    {"odd_id", entries_odd_id, METH_NOARGS, odd_id_doc},
    {"size", entries_size, METH_NOARGS, size_doc},
    {"ended", entries_ended, METH_NOARGS, ended_doc},
    {"take_plain", entries_take_plain, METH_VARARGS, take_plain_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(entries_doc, "Entries of a stream, (id, [field, value, ...]) each, made when they are asked for.");

static PyType_Slot entries_slots[] = {
    {Py_tp_doc, (void *)entries_doc},
    {Py_tp_dealloc, entries_dealloc},
    {Py_tp_methods, entries_methods},
    {Py_sq_length, entries_length},
    {Py_sq_item, entries_item},
    {Py_mp_length, entries_length},
    {Py_mp_subscript, entries_subscript},
    {0, NULL},
};

PyType_Spec entries_spec = {
    "sinks._entries.Entries", sizeof(Entries), 0, Py_TPFLAGS_DEFAULT, entries_slots};

/* --- replies --------------------------------------------------------------------------------------------------------*/

/* Answers as they arrive, of which one is to be entries. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t expected, there, entries_at;
    struct buffer starts; /* of each answer that is there, size_t */
    size_t at, start;     /* how far the text is read, and where the answer in hand began */
    long long pending;    /* how many values of that answer are to be passed yet; 0: it has not begun */
    long long left;       /* how many entries are yet to come; -1: what comes next is their number */
    int is_entries;       /* what comes where the entries are to be may still be that */
    int is_push;          /* what is passed answers nothing */
    struct progress entry;
    Entries *entries; /* they own the bytes of all answers */
} Replies;

static PyObject *replies_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(names))
{
    PyObject *entries_type;
    Py_ssize_t expected, entries_at;
    if (!PyArg_ParseTuple(arguments, "O!nn", &PyType_Type, &entries_type, &expected, &entries_at))
        return NULL;
    if (PyType_GetSlot((PyTypeObject *)entries_type, Py_tp_dealloc) != (void *)entries_dealloc) {
        PyErr_SetString(PyExc_TypeError, "expected the type Entries");
        return NULL;
    }
    Replies *self = (Replies *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->expected = expected;
    self->entries_at = entries_at;
    self->left = -1;
    self->is_entries = 1;
    self->entries = (Entries *)PyObject_CallNoArgs(entries_type);
    if (self->entries == NULL || !append(&self->entries->texts, &(struct text){NULL, NULL}, sizeof(struct text)))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void replies_dealloc(PyObject *self)
{
    Replies *replies = (Replies *)self;
    PyTypeObject *type = Py_TYPE(self);
    clear(&replies->starts);
    Py_XDECREF((PyObject *)replies->entries);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Read on in the answer that is to be entries. */
static enum got read_entries(Replies *self, struct input *in)
{
    enum got got;
    if (self->left < 0) {
        if ((got = read_number(in, '*', &self->left)) != WHOLE)
            return got;
        if (self->left < 0)
            return OTHER;
    }
    for (; self->left; self->left--) {
        struct progress *made = &self->entry;
        if (!made->words && (got = begin_entry(in, made)) != WHOLE)
            return got;
        if ((got = read_words(in, made)) != WHOLE)
            return got;
        end_entry(in, made);
        if (!append(&self->entries->index, &made->entry, sizeof made->entry))
            return FAILED;
        self->entries->count++;
        made->words = 0;
    }
    return WHOLE;
}

/* Read on in an answer, or in what answers nothing. */
static enum got read_reply(Replies *self, struct input *in)
{
    if (in->at == in->used)
        return PART;
    if (self->pending == 0 && self->left < 0) {
        self->start = in->at;
        self->is_push = in->text[in->at] == '>';
    }
    if (!self->is_push && self->there == self->entries_at && self->is_entries) {
        enum got got = read_entries(self, in);
        if (got != OTHER)
            return got;
        if (self->entries->count) /* it began as entries do: no Redis goes on otherwise */
            return OTHER;
        self->is_entries = 0;
        in->at = self->start;
    }
    if (self->pending == 0)
        self->pending = 1;
    return skip(in, &self->pending);
}

PyDoc_STRVAR(
    feed_doc,
    "feed(data): bool\n\n"
    "Take what has arrived; returns whether all answers are there. Raises ValueError: Redis says no such thing, or all\n"
    "were there before.");

static PyObject *replies_feed(PyObject *self, PyObject *data)
{
    Replies *replies = (Replies *)self;
    struct buffer *text = &replies->entries->text;
    char *bytes;
    Py_ssize_t size;
    if (replies->there == replies->expected) {
        PyErr_SetString(PyExc_ValueError, "all answers are there");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0 || !append(text, bytes, (size_t)size))
        return NULL;
    struct input in = {text->data, replies->at, text->used};
    ((struct text *)(void *)replies->entries->texts.data)->data = in.text; /* it may have moved */
    enum got got = WHOLE;
    while (got == WHOLE && in.at < in.used) { /* behind the last answer too, where pushes may be */
        got = read_reply(replies, &in);
        if (got == WHOLE && !replies->is_push) {
            if (replies->there == replies->expected)
                break; /* this answers nothing that was asked */
            if (!append(&replies->starts, &replies->start, sizeof replies->start))
                got = FAILED;
            replies->there++;
            replies->left = -1;
        }
        if (got == WHOLE || got == PART)
            replies->at = in.at;
    }
    if (got == OTHER)
        PyErr_SetString(PyExc_ValueError, "this is not Redis' protocol");
    return got == OTHER || got == FAILED ? NULL : PyBool_FromLong(replies->there == replies->expected);
}

PyDoc_STRVAR(
    answers_doc,
    "answers(refusal): list, or None\n\n"
    "What redis-py would return for each, with Entries in the place of the entries, once all are there. An error is what\n"
    "`refusal` makes of its text. None: one is unusual, or more has arrived behind them.");

static PyObject *replies_answers(PyObject *self, PyObject *refusal)
{
    Replies *replies = (Replies *)self;
    const struct buffer *text = &replies->entries->text;
    if (replies->there < replies->expected || replies->at != text->used || replies->pending)
        Py_RETURN_NONE;
    PyObject *list = PyList_New(0);
    const size_t *starts = (const size_t *)(const void *)replies->starts.data;
    for (Py_ssize_t number = 0; list != NULL && number < replies->expected; number++) {
        struct input in = {text->data, starts[number], text->used};
        int is_refusal = in.text[in.at] == '-';
        PyObject *value = NULL;
        if (number != replies->entries_at || is_refusal)
            value = value_of(&in, refusal, 0);
        else if (replies->is_entries)
            value = Py_NewRef((PyObject *)replies->entries);
        if (value == NULL || PyList_Append(list, value) < 0)
            Py_CLEAR(list);
        Py_XDECREF(value);
    }
    if (list == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return list;
}

static PyMethodDef replies_methods[] = {
    {"feed", replies_feed, METH_O, feed_doc},
    {"answers", replies_answers, METH_O, answers_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    replies_doc,
    "Replies(Entries, expected, entries_at)\n\n"
    "So many answers as they arrive from Redis, of which the one at `entries_at` is that of XRANGE.");

static PyType_Slot replies_slots[] = {
    {Py_tp_doc, (void *)replies_doc},
    {Py_tp_new, replies_new},
    {Py_tp_dealloc, replies_dealloc},
    {Py_tp_methods, replies_methods},
    {0, NULL},
};

PyType_Spec replies_spec = {"sinks._entries.Replies", sizeof(Replies), 0, Py_TPFLAGS_DEFAULT, replies_slots};

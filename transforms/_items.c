/* Rows as items (cdc/append.py: each the XADD of an entry), many at a time: plain frames of the log, and rows that were found
by a query. What is unusual ends a run, and is left to Python. */

#include "_rows.h"

enum { SLOTS_PER_MESSAGE = 1000000 }; /* transforms/position.py */

struct piece {
    const char *bytes;
    Py_ssize_t size;
};

/* --- frames ---------------------------------------------------------------------------------------------------------*/

/* An XLogData frame: `w`, two LSNs, a clock; then the message: its kind, and what follows by kind.
Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html */
enum { KIND_AT = 25, BODY_AT = 26 };
enum { NEW_AT = BODY_AT + 4, TUPLE_AT = NEW_AT + 1 };             /* a row: its relation, `N`, the tuple */
enum { COMMIT_TIME_AT = BODY_AT + 8, XID_AT = COMMIT_TIME_AT + 8, BEGIN_SIZE = XID_AT + 4 };
enum { LSN_AT = BODY_AT + 1, END_AT = LSN_AT + 8, COMMIT_SIZE = END_AT + 16 };
static const int64_t MICROSECONDS_2000 = 946684800000000; /* from 1970 on */

/* One of a list's frames; `bytes` is NULL where there is none. */
struct frame {
    Text bytes;
    size_t size;
};

static enum outcome frame_at(PyObject *frames, Py_ssize_t at, struct frame *frame)
{
    char *bytes;
    Py_ssize_t size;
    frame->bytes = NULL;
    frame->size = 0;
    if (at >= PyList_Size(frames))
        return DONE;
    if (PyBytes_AsStringAndSize(PyList_GetItem(frames, at), &bytes, &size) < 0)
        return FAILED;
    frame->bytes = (Text)bytes;
    frame->size = (size_t)size;
    return DONE;
}

static int is_kind(const struct frame *frame, char kind)
{
    return frame->size > KIND_AT && frame->bytes[0] == 'w' && frame->bytes[KIND_AT] == kind;
}

static int is_plain_change(const struct frame *frame, const struct piece *relation)
{
    return frame->size > TUPLE_AT && (is_kind(frame, 'I') || is_kind(frame, 'U')) &&
           memcmp(frame->bytes + BODY_AT, relation->bytes, 4) == 0 && frame->bytes[NEW_AT] == 'N';
}

static uint64_t number_at(const struct frame *frame, size_t at, size_t size)
{
    uint64_t number = 0;
    for (size_t end = at + size; at < end; at++)
        number = number << 8 | frame->bytes[at];
    return number;
}

/* --- words of Redis' protocol ---------------------------------------------------------------------------------------*/

struct digits {
    unsigned char all[20], *start;
    size_t size;
};

static void set_digits(struct digits *digits, uint64_t number)
{
    unsigned char *end = digits->all + sizeof digits->all;
    digits->start = end;
    do
        *--digits->start = (unsigned char)('0' + number % 10);
    while (number /= 10);
    digits->size = (size_t)(end - digits->start);
}

/* A bulk string of two parts. */
static int put_word(struct buffer *out, const void *first, size_t first_size, const void *second, size_t second_size)
{
    struct digits size;
    set_digits(&size, first_size + second_size);
    if (!reserve(out, 5 + size.size + first_size + second_size))
        return 0;
    put_byte(out, '$');
    put(out, size.start, size.size);
    put(out, "\r\n", 2);
    put(out, first, first_size);
    put(out, second, second_size);
    put(out, "\r\n", 2);
    return 1;
}

static int put_piece(struct buffer *out, const struct piece *piece)
{
    return put_word(out, piece->bytes, (size_t)piece->size, "", 0);
}

static int put_bytes(struct buffer *out, const struct piece *piece)
{
    if (!reserve(out, (size_t)piece->size))
        return 0;
    put(out, piece->bytes, (size_t)piece->size);
    return 1;
}

static int put_text(struct buffer *out, const char *text)
{
    struct piece piece = {text, (Py_ssize_t)strlen(text)};
    return put_bytes(out, &piece);
}

static int put_number(struct buffer *out, uint64_t number)
{
    struct digits digits;
    set_digits(&digits, number);
    return put_word(out, digits.start, digits.size, "", 0);
}

/* What all items of a call have in common. */
struct form {
    struct piece open, label, tail;
};

static int put_row_item(
    struct buffer *out, const struct form *form, const struct piece *id_prefix, uint64_t ordinal,
    const struct piece *key, const struct piece *state)
{
    struct digits digits;
    set_digits(&digits, ordinal);
    return put_bytes(out, &form->open) &&
           put_word(out, id_prefix->bytes, (size_t)id_prefix->size, digits.start, digits.size) &&
           put_bytes(out, &form->label) && put_piece(out, key) && put_text(out, "$5\r\nstate\r\n") &&
           put_piece(out, state) && put_bytes(out, &form->tail);
}

/* --- items ----------------------------------------------------------------------------------------------------------*/

/* What a call makes, and how much of it may be made. */
struct items {
    PyObject *all; /* a list */
    Py_ssize_t rows, bytes, most_rows, most_bytes;
    struct buffer item, key, state;
};

static int begin_items(struct items *items)
{
    items->all = PyList_New(0);
    return items->all != NULL;
}

static int is_full(const struct items *items)
{
    return items->rows >= items->most_rows || items->bytes >= items->most_bytes;
}

/* Append what is in `item`. */
static enum outcome add_item(struct items *items)
{
    PyObject *whole = PyBytes_FromStringAndSize((const char *)items->item.data, (Py_ssize_t)items->item.used);
    int failed = whole == NULL || PyList_Append(items->all, whole) < 0;
    Py_XDECREF(whole);
    items->bytes += (Py_ssize_t)items->item.used;
    items->item.used = 0;
    return failed ? FAILED : DONE;
}

/* Append the row of a frame. */
static enum outcome add_change(
    struct items *items, const Plan *plan, PyObject *frames, Py_ssize_t at, const struct form *form,
    const struct piece *id_prefix, uint64_t ordinal)
{
    struct frame frame;
    items->key.used = items->state.used = 0;
    if (frame_at(frames, at, &frame) != DONE)
        return FAILED;
    if (frame.bytes == NULL)
        return NOT_MINE;
    PyObject *held = Py_NewRef(PyList_GetItem(frames, at)); /* an encoder in Python may do anything, to the list too */
    enum outcome outcome = encode_tuple(plan, frame.bytes, frame.size, TUPLE_AT, &items->key, &items->state);
    Py_DECREF(held);
    if (outcome != DONE)
        return outcome == ABSENT ? NOT_MINE : outcome;
    struct piece key = {(const char *)items->key.data, (Py_ssize_t)items->key.used};
    struct piece state = {(const char *)items->state.data, (Py_ssize_t)items->state.used};
    if (!put_row_item(&items->item, form, id_prefix, ordinal, &key, &state))
        return FAILED;
    items->rows++;
    return add_item(items);
}

/* Give up what the items hold but their list; returns the list, or NULL after a failure. */
static PyObject *end_items(struct items *items, enum outcome outcome)
{
    PyMem_Free(items->item.data);
    PyMem_Free(items->key.data);
    PyMem_Free(items->state.data);
    if (outcome == FAILED)
        Py_CLEAR(items->all);
    return items->all;
}

static int are_valid(Py_ssize_t first, Py_ssize_t number, const struct piece *relation)
{
    if (first >= 0 && number >= 0 && relation->size == 4)
        return 1;
    PyErr_SetString(PyExc_ValueError, "an offset or a number is negative, or a relation's id not four bytes");
    return 0;
}

/* --- rows of one transaction ----------------------------------------------------------------------------------------*/

const char upserts_doc[] = PyDoc_STR(
    "upserts(frames, first, relation, prefix, number, open, label, tail, most, most_bytes): (items, size)\n\n"
    "The items of frames, from number `first` of the list on, that are inserts of this relation, or updates without an\n"
    "old row: open, id, label, key, \"state\", state, tail. The ids are prefix, number (counted up), 000000. Ends before\n"
    "the first frame that is anything else, and behind `most` items or the one with which they have `most_bytes`. Size:\n"
    "of the items.");

PyObject *plan_upserts(PyObject *self, PyObject *arguments)
{
    PyObject *frames;
    struct piece relation, prefix;
    struct form form;
    Py_ssize_t first, number;
    struct items items = {0};
    if (!PyArg_ParseTuple(
            arguments, "O!ny#y#ny#y#y#nn", &PyList_Type, &frames, &first, &relation.bytes, &relation.size,
            &prefix.bytes, &prefix.size, &number, &form.open.bytes, &form.open.size, &form.label.bytes,
            &form.label.size, &form.tail.bytes, &form.tail.size, &items.most_rows, &items.most_bytes))
        return NULL;
    if (!are_valid(first, number, &relation) || !begin_items(&items))
        return NULL;
    enum outcome outcome = DONE;
    while (outcome == DONE && !is_full(&items)) {
        struct frame frame;
        Py_ssize_t at = first + items.rows;
        outcome = frame_at(frames, at, &frame);
        if (outcome != DONE || !is_plain_change(&frame, &relation))
            break;
        uint64_t ordinal = (uint64_t)(number + items.rows) * SLOTS_PER_MESSAGE;
        outcome = add_change(&items, (const Plan *)self, frames, at, &form, &prefix, ordinal);
    }
    PyObject *made = end_items(&items, outcome);
    return made == NULL ? NULL : Py_BuildValue("Nn", made, items.bytes);
}

/* --- whole transactions ---------------------------------------------------------------------------------------------*/

/* A transaction all of whose frames are there, and are plain changes of one relation. */
struct transaction {
    Py_ssize_t rows;
    uint64_t lsn, end; /* of its Commit record, and behind it */
    int64_t time;      /* microseconds since 1970 */
    uint32_t xid;
};

/* NOT_MINE: it is no such transaction, or has `room` rows or more. */
static enum outcome find_transaction(
    PyObject *frames, Py_ssize_t first, const struct piece *relation, Py_ssize_t room, struct transaction *found)
{
    struct frame begin, frame;
    if (frame_at(frames, first, &begin) != DONE)
        return FAILED;
    if (!is_kind(&begin, 'B') || begin.size != BEGIN_SIZE)
        return NOT_MINE;
    for (found->rows = 0;; found->rows++) {
        if (frame_at(frames, first + 1 + found->rows, &frame) != DONE)
            return FAILED;
        if (!is_plain_change(&frame, relation))
            break;
        if (found->rows + 1 >= room)
            return NOT_MINE;
    }
    found->lsn = number_at(&begin, BODY_AT, 8);
    if (!found->rows || !is_kind(&frame, 'C') || frame.size != COMMIT_SIZE || number_at(&frame, LSN_AT, 8) != found->lsn)
        return NOT_MINE;
    found->time = (int64_t)number_at(&begin, COMMIT_TIME_AT, 8) + MICROSECONDS_2000;
    found->xid = (uint32_t)number_at(&begin, XID_AT, 4);
    found->end = number_at(&frame, END_AT, 8);
    return found->time < 0 ? NOT_MINE : DONE;
}

/* What the items of transactions have in common; the last one of each has an opening of its own. */
struct forms {
    struct piece open, open_last, label;
    struct buffer tail;
};

/* Write the tail of an item, and where it is the last one's that it is. */
static int set_tail(struct buffer *out, const struct transaction *transaction, int is_last)
{
    out->used = 0;
    return put_text(out, "$2\r\nts\r\n") && put_number(out, (uint64_t)transaction->time) &&
           put_text(out, "$2\r\ntx\r\n") && put_number(out, transaction->xid) &&
           (!is_last || put_text(out, "$3\r\nend\r\n$1\r\n1\r\n"));
}

/* Append the items of a transaction; none of them unless DONE. NOT_MINE also where they would fill what there is. */
static enum outcome add_transaction(
    struct items *items, const Plan *plan, PyObject *frames, Py_ssize_t first, const struct transaction *transaction,
    struct forms *forms)
{
    Py_ssize_t rows_before = items->rows, bytes_before = items->bytes;
    unsigned char text[21];
    struct digits lsn;
    set_digits(&lsn, transaction->lsn);
    memcpy(text, lsn.start, lsn.size);
    text[lsn.size] = '-';
    struct piece prefix = {(const char *)text, (Py_ssize_t)lsn.size + 1};
    enum outcome outcome = DONE;
    for (Py_ssize_t row = 1; outcome == DONE && row <= transaction->rows; row++) {
        int is_last = row == transaction->rows;
        if ((row == 1 || is_last) && !set_tail(&forms->tail, transaction, is_last))
            return FAILED;
        struct form form = {
            is_last ? forms->open_last : forms->open, forms->label,
            {(const char *)forms->tail.data, (Py_ssize_t)forms->tail.used}};
        outcome = add_change(items, plan, frames, first + row, &form, &prefix, (uint64_t)row * SLOTS_PER_MESSAGE);
    }
    if (outcome == DONE && is_full(items))
        outcome = NOT_MINE;
    if (outcome == NOT_MINE) {
        if (PyList_SetSlice(items->all, rows_before, PyList_Size(items->all), NULL) < 0)
            return FAILED;
        items->rows = rows_before;
        items->bytes = bytes_before;
    }
    return outcome;
}

static enum outcome append_xid(PyObject *xids, uint32_t xid)
{
    PyObject *number = PyLong_FromUnsignedLong(xid);
    int failed = number == NULL || PyList_Append(xids, number) < 0;
    Py_XDECREF(number);
    return failed ? FAILED : DONE;
}

const char transactions_doc[] = PyDoc_STR(
    "transactions(frames, first, relation, open, open_last, label, most, most_bytes):\n"
    "    (items, size, xids, lsn, end, time), or None where there is none\n\n"
    "The items of whole transactions, from frame number `first` of the list on, all of whose changes are inserts of\n"
    "this relation, or updates without an old row. `open_last`: what the last item of each begins with. Ends before\n"
    "the first transaction that holds anything else, is not wholly there, or with which there would be `most` items,\n"
    "or `most_bytes` of them. Size: of the items. Then the transactions' ids, and of the last one its LSN, its end,\n"
    "and its time in microseconds since 1970.");

PyObject *plan_transactions(PyObject *self, PyObject *arguments)
{
    PyObject *frames, *xids = NULL;
    struct piece relation;
    struct forms forms = {.tail = {0}};
    Py_ssize_t first;
    struct items items = {0};
    struct transaction next, last = {0};
    if (!PyArg_ParseTuple(
            arguments, "O!ny#y#y#y#nn", &PyList_Type, &frames, &first, &relation.bytes, &relation.size,
            &forms.open.bytes, &forms.open.size, &forms.open_last.bytes, &forms.open_last.size, &forms.label.bytes,
            &forms.label.size, &items.most_rows, &items.most_bytes))
        return NULL;
    if (!are_valid(first, 0, &relation))
        return NULL;
    enum outcome outcome = find_transaction(frames, first, &relation, items.most_rows, &next);
    if (outcome == FAILED)
        return NULL;
    if (outcome == NOT_MINE)
        Py_RETURN_NONE;
    outcome = begin_items(&items) && (xids = PyList_New(0)) != NULL ? DONE : FAILED;
    while (outcome == DONE) {
        outcome = add_transaction(&items, (const Plan *)self, frames, first, &next, &forms);
        if (outcome != DONE)
            break;
        last = next;
        outcome = append_xid(xids, last.xid);
        first += last.rows + 2;
        if (outcome == DONE)
            outcome = find_transaction(frames, first, &relation, items.most_rows - items.rows, &next);
    }
    PyMem_Free(forms.tail.data);
    PyObject *made = end_items(&items, outcome);
    if (made == NULL || items.rows == 0) {
        Py_XDECREF(made);
        Py_XDECREF(xids);
        return made == NULL ? NULL : Py_NewRef(Py_None);
    }
    return Py_BuildValue(
        "NnNKKL", made, items.bytes, xids, (unsigned long long)last.lsn, (unsigned long long)last.end,
        (long long)last.time);
}

/* --- rows that were found by a query --------------------------------------------------------------------------------*/

/* A pair of bytes. */
static int is_plain_row(PyObject *row, struct piece *key, struct piece *state)
{
    if (!PyTuple_CheckExact(row) || PyTuple_Size(row) != 2)
        return 0;
    PyObject *first = PyTuple_GetItem(row, 0), *second = PyTuple_GetItem(row, 1);
    return PyBytes_Check(first) && PyBytes_Check(second) &&
           PyBytes_AsStringAndSize(first, (char **)&key->bytes, &key->size) == 0 &&
           PyBytes_AsStringAndSize(second, (char **)&state->bytes, &state->size) == 0;
}

const char found_doc[] = PyDoc_STR(
    "found(rows, first, prefix, ordinal, open, label, tail, most, most_bytes): (items, size)\n\n"
    "The items of rows, from number `first` of the list on, that are plain pairs (key, state); see `Plan.upserts`. The\n"
    "ids are prefix and ordinal, counted up. Ends before the first row that is anything else, and behind `most` items or\n"
    "the one with which they have `most_bytes`. Size: of the items.");

PyObject *found(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *rows;
    struct piece prefix, key, state;
    struct form form;
    Py_ssize_t first, ordinal;
    struct items items = {0};
    if (!PyArg_ParseTuple(
            arguments, "O!ny#ny#y#y#nn", &PyList_Type, &rows, &first, &prefix.bytes, &prefix.size, &ordinal,
            &form.open.bytes, &form.open.size, &form.label.bytes, &form.label.size, &form.tail.bytes, &form.tail.size,
            &items.most_rows, &items.most_bytes))
        return NULL;
    if (first < 0 || ordinal < 0) {
        PyErr_SetString(PyExc_ValueError, "an offset or an ordinal is negative");
        return NULL;
    }
    if (!begin_items(&items))
        return NULL;
    enum outcome outcome = DONE;
    for (; outcome == DONE && first < PyList_Size(rows) && !is_full(&items); first++) {
        if (!is_plain_row(PyList_GetItem(rows, first), &key, &state))
            break;
        int is_put = put_row_item(&items.item, &form, &prefix, (uint64_t)(ordinal + items.rows), &key, &state);
        outcome = is_put ? add_item(&items) : FAILED;
        items.rows++;
    }
    PyObject *made = end_items(&items, outcome);
    return made == NULL ? NULL : Py_BuildValue("Nn", made, items.bytes);
}

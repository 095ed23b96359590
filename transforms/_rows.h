/* What the files of transforms._rows share: bytes that grow, and a row's key and state. */

#ifndef STATECAST_ROWS_H
#define STATECAST_ROWS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef const unsigned char *Text;

/* What a step comes to. FAILED: a Python exception is set. ABSENT: the row is not wanted. */
enum outcome { FAILED = -1, NOT_MINE = 0, DONE = 1, ABSENT = 2 };

struct buffer {
    unsigned char *data;
    size_t used, size;
};

/* Make room for that many more bytes, which come in addition to what is used. */
int reserve(struct buffer *out, size_t more);

/* The following write into room that was reserved. */

static inline void put_byte(struct buffer *out, unsigned char byte)
{
    out->data[out->used++] = byte;
}

static inline void put(struct buffer *out, const void *bytes, size_t size)
{
    memcpy(out->data + out->used, bytes, size);
    out->used += size;
}

/* The plan of a relation, an object of Python. */
typedef struct plan Plan;

/* Write key and state of the tuple at `at`, which must reach to the end of the data; of an ABSENT row the key alone. */
enum outcome encode_tuple(
    const Plan *plan, Text data, size_t size, size_t at, struct buffer *key, struct buffer *state);

/* Methods of a plan, and a function of the module (_items.c). */
extern const char upserts_doc[], transactions_doc[], found_doc[];
PyObject *plan_upserts(PyObject *self, PyObject *arguments);
PyObject *plan_transactions(PyObject *self, PyObject *arguments);
PyObject *found(PyObject *module, PyObject *arguments);

#endif

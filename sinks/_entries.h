/* What the files of sinks._entries share. */

#ifndef STATECAST_ENTRIES_H
#define STATECAST_ENTRIES_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <string.h>

/* Bytes that grow. */
struct bytes {
    char *data;
    size_t used, size;
};

/* Make room for that many more. Returns whether there is; else an exception is set. */
static inline int reserve(struct bytes *bytes, size_t more)
{
    if (bytes->size - bytes->used >= more)
        return 1;
    size_t size = bytes->used + more > 2 * bytes->size ? bytes->used + more : 2 * bytes->size;
    char *data = PyMem_Realloc(bytes->data, size);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    bytes->data = data;
    bytes->size = size;
    return 1;
}

static inline void clear(struct bytes *bytes)
{
    PyMem_Free(bytes->data);
    *bytes = (struct bytes){NULL, 0, 0};
}

/* Types of the module (_replies.c). */
extern PyType_Spec entries_spec, replies_spec;

#endif

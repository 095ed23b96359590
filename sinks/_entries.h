/* What the files of sinks._entries share. */

#ifndef STATECAST_ENTRIES_H
#define STATECAST_ENTRIES_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <string.h>

/* Bytes that grow. */
struct buffer {
    char *data;
    size_t used, size;
};

/* Make room for that many more. Returns whether there is; else an exception is set. */
static inline int reserve(struct buffer *buffer, size_t more)
{
    if (buffer->size - buffer->used >= more)
        return 1;
    size_t size = buffer->used + more > 2 * buffer->size ? buffer->used + more : 2 * buffer->size;
    char *data = PyMem_Realloc(buffer->data, size);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    buffer->data = data;
    buffer->size = size;
    return 1;
}

static inline void clear(struct buffer *buffer)
{
    PyMem_Free(buffer->data);
    *buffer = (struct buffer){NULL, 0, 0};
}

/* Types of the module (_replies.c). */
extern PyType_Spec entries_spec, replies_spec;

#endif

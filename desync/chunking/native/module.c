/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The Python module desync.chunking._native: takes arguments apart, checks them, lets other threads run during the work.
 * What each function does is said in desync/chunking/kernels.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "cuts.h"
#include "sha512.h"
#include "siphash.h"
#include "tables.h"
#include "zeros.h"

/* Less work than this isn't worth letting go of the interpreter lock. */
#define SMALL 2048

static enum level best_level(void)
{
#ifdef DESYNC_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        return LEVEL_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return LEVEL_AVX2;
#endif
    return LEVEL_SCALAR;
}

static int check_level(int level)
{
    if (level >= LEVEL_SCALAR && level <= (int)best_level())
        return 0;
    PyErr_Format(PyExc_ValueError, "this processor has no level %d", level);
    return -1;
}

static PyObject *py_best_level(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(best_level());
}

static PyObject *py_cut_kernel(PyObject *module, PyObject *args)
{
    int level;
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "i:cut_kernel", &level) || check_level(level))
        return NULL;
    cut_finder((enum level)level, &name);
    return PyUnicode_FromString(name);
}

static PyObject *py_hash_kernel(PyObject *module, PyObject *args)
{
    int level;
    unsigned lanes;
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "i:hash_kernel", &level) || check_level(level))
        return NULL;
    if (!hash_kernel((enum level)level, &lanes, &name))
        Py_RETURN_NONE;
    return PyUnicode_FromString(name);
}

/* A buffer of 32-bit numbers: complain if it can't be one. (An empty array is nowhere in particular.) */
static int check_words(const Py_buffer *view)
{
    if (view->len % sizeof(uint32_t) == 0 && (view->len == 0 || (uintptr_t)view->buf % _Alignof(uint32_t) == 0))
        return 0;
    PyErr_SetString(PyExc_ValueError, "not a buffer of 32-bit numbers");
    return -1;
}

static int check_cuts(const Py_buffer *data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t end, int final, Py_ssize_t min,
                      Py_ssize_t max, Py_ssize_t discriminator, const Py_buffer *ends)
{
    if (min < 1 || max < min || (min != max && (max < WINDOW || discriminator < 1 || (uint64_t)discriminator > UINT32_MAX))) {
        PyErr_Format(PyExc_ValueError, "no cut rule: min %zd, max %zd, discriminator %zd", min, max, discriminator);
        return -1;
    }
    if (start < 0 || end < start || data->len < end) {
        PyErr_Format(PyExc_ValueError, "from %zd to %zd is not a part of %zd bytes", start, end, data->len);
        return -1;
    }
    if ((uint64_t)end > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are more than offsets of 32 bits can tell apart", end);
        return -1;
    }
    if (check_words(ends))
        return -1;
    if (start >= stop)
        return 0;
    if (!final && (stop > end || end - (stop - 1) < max)) {
        PyErr_Format(PyExc_ValueError, "a chunk of %zd bytes from %zd on would not end before %zd", max, stop - 1, end);
        return -1;
    }
    Py_ssize_t shortest = min == max ? max : min > WINDOW ? min : WINDOW;
    Py_ssize_t length = (stop < end ? stop : end) - start;
    Py_ssize_t most = length / shortest + (length % shortest != 0);
    Py_ssize_t room = ends->len / (Py_ssize_t)sizeof(uint32_t);
    if (room < most) {
        PyErr_Format(PyExc_ValueError, "room for %zd cuts where there can be %zd", room, most);
        return -1;
    }
    return 0;
}

static PyObject *py_find_cuts(PyObject *module, PyObject *args)
{
    Py_buffer data, ends;
    Py_ssize_t start, stop, end, min, max, discriminator;
    int level, final;
    const char *name;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "iy*nnnpnnnw*:find_cuts", &level, &data, &start, &stop, &end, &final, &min, &max, &discriminator,
                          &ends))
        return NULL;
    if (!check_level(level) && !check_cuts(&data, start, stop, end, final, min, max, discriminator, &ends)) {
        struct cut_rule rule = {(size_t)min, (size_t)max, (uint32_t)discriminator};
        match_finder *finder = cut_finder((enum level)level, &name);
        size_t count = 0;
        if (start < stop) {
            Py_BEGIN_ALLOW_THREADS
            count = find_cuts(finder, data.buf, (size_t)start, (size_t)stop, (size_t)end, &rule, ends.buf);
            Py_END_ALLOW_THREADS
        }
        result = PyLong_FromSize_t(count);
    }
    PyBuffer_Release(&ends);
    PyBuffer_Release(&data);
    return result;
}

/* Hash all jobs, of which each writes to its place in the bytes object `ids`; give back `ids`, or None if ours isn't the way to
 * do it. Takes over `ids`. */
static PyObject *do_jobs(int level, struct hash_job *jobs, size_t count, PyObject *ids)
{
    unsigned lanes;
    const char *name;
    sha512_lanes *kernel = hash_kernel((enum level)level, &lanes, &name);
    if (count && (!kernel || !fill_lanes(jobs, count))) {
        Py_DECREF(ids);
        Py_RETURN_NONE;
    }
    if (count) {
        Py_BEGIN_ALLOW_THREADS
        hash_jobs(kernel, lanes, jobs, count);
        Py_END_ALLOW_THREADS
    }
    return ids;
}

/* Memory for as many jobs, at least one, or NULL with an exception set. */
static struct hash_job *new_jobs(Py_ssize_t count)
{
    struct hash_job *jobs = NULL;
    if ((size_t)count < SIZE_MAX / sizeof *jobs)
        jobs = PyMem_Malloc(((size_t)count + 1) * sizeof *jobs);
    if (!jobs)
        PyErr_NoMemory();
    return jobs;
}

static PyObject *new_ids(Py_ssize_t count)
{
    if (count > PY_SSIZE_T_MAX / SHA512_256_SIZE)
        return PyErr_NoMemory();
    return PyBytes_FromStringAndSize(NULL, count * SHA512_256_SIZE);
}

/* The chunks that need hashing, those of zeros of the given length left out; -1 with an exception set if one is impossible. */
static Py_ssize_t jobs_of_ranges(const Py_buffer *data, Py_ssize_t start, const uint32_t *ends, Py_ssize_t count,
                                 Py_ssize_t null_length, const char *null_id, char *ids, struct hash_job *jobs)
{
    Py_ssize_t wanted = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t end = (Py_ssize_t)ends[i];
        if (end < start || data->len < end) {
            PyErr_Format(PyExc_ValueError, "a chunk from %zd to %zd of %zd bytes", start, end, data->len);
            return -1;
        }
        const uint8_t *chunk = (const uint8_t *)data->buf + start;
        char *id = ids + i * SHA512_256_SIZE;
        if (end - start == null_length && is_zero(chunk, (size_t)null_length))
            memcpy(id, null_id, SHA512_256_SIZE);
        else
            jobs[wanted++] = (struct hash_job){chunk, (size_t)(end - start), (uint8_t *)id};
        start = end;
    }
    return wanted;
}

static PyObject *py_hash_ranges(PyObject *module, PyObject *args)
{
    Py_buffer data, ends;
    Py_ssize_t start, count, null_length = -1, null_id_size = SHA512_256_SIZE;
    int level;
    const char *null_id = NULL;
    PyObject *null, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "iy*ny*nO:hash_ranges", &level, &data, &start, &ends, &count, &null))
        return NULL;
    if (null != Py_None && (!PyTuple_Check(null) || !PyArg_ParseTuple(null, "ny#:null", &null_length, &null_id, &null_id_size))) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "null must be a length and an id, or None");
        goto done;
    }
    if (null_id_size != SHA512_256_SIZE) {
        PyErr_Format(PyExc_ValueError, "an id of %zd bytes", null_id_size);
        goto done;
    }
    if (check_level(level) || check_words(&ends))
        goto done;
    if (count < 0 || ends.len / (Py_ssize_t)sizeof(uint32_t) < count || start < 0) {
        PyErr_Format(PyExc_ValueError, "%zd chunks from %zd on, from %zd ends", count, start,
                     ends.len / (Py_ssize_t)sizeof(uint32_t));
        goto done;
    }
    struct hash_job *jobs = new_jobs(count);
    PyObject *ids = jobs ? new_ids(count) : NULL;
    if (ids) {
        Py_ssize_t wanted =
            jobs_of_ranges(&data, start, ends.buf, count, null_length, null_id, PyBytes_AsString(ids), jobs);
        if (wanted < 0)
            Py_DECREF(ids);
        else
            result = do_jobs(level, jobs, (size_t)wanted, ids);
    }
    PyMem_Free(jobs);
done:
    PyBuffer_Release(&ends);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *py_hash_buffers(PyObject *module, PyObject *args)
{
    int level;
    PyObject *sequence, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO:hash_buffers", &level, &sequence) || check_level(level))
        return NULL;
    /* A tuple of our own, which nobody can change while other threads run. */
    PyObject *buffers = PySequence_Tuple(sequence);
    if (!buffers)
        return NULL;
    Py_ssize_t count = PyTuple_Size(buffers), taken = 0;
    struct hash_job *jobs = new_jobs(count);
    Py_buffer *views = jobs ? PyMem_Malloc(((size_t)count + 1) * sizeof *views) : NULL;
    PyObject *ids = views ? new_ids(count) : NULL;
    if (jobs && !views)
        PyErr_NoMemory();
    if (ids) {
        uint8_t *digest = (uint8_t *)PyBytes_AsString(ids);
        for (; taken < count; taken++) {
            Py_buffer *view = &views[taken];
            if (PyObject_GetBuffer(PyTuple_GetItem(buffers, taken), view, PyBUF_SIMPLE))
                break;
            jobs[taken] = (struct hash_job){view->buf, (size_t)view->len, digest + taken * SHA512_256_SIZE};
        }
        if (taken < count)
            Py_DECREF(ids);
        else
            result = do_jobs(level, jobs, (size_t)count, ids);
    }
    while (taken)
        PyBuffer_Release(&views[--taken]);
    PyMem_Free(views);
    PyMem_Free(jobs);
    Py_DECREF(buffers);
    return result;
}

static PyObject *py_is_zero(PyObject *module, PyObject *args)
{
    Py_buffer data;
    int zero;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*:is_zero", &data))
        return NULL;
    if (data.len <= SMALL || !is_zero(data.buf, SMALL)) {
        zero = data.len <= SMALL && is_zero(data.buf, (size_t)data.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        zero = is_zero(data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return PyBool_FromLong(zero);
}

static PyObject *py_siphash(PyObject *module, PyObject *args)
{
    Py_buffer data, key;
    PyObject *hash = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*:siphash", &data, &key))
        return NULL;
    if (key.len == SIPHASH_KEY_SIZE)
        hash = PyLong_FromUnsignedLongLong(siphash(data.buf, (size_t)data.len, key.buf));
    else
        PyErr_Format(PyExc_ValueError, "a key of %zd bytes", key.len);
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return hash;
}

static PyObject *py_check_table(PyObject *module, PyObject *args)
{
    Py_buffer table;
    PyObject *size;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*O!:check_table", &table, &PyLong_Type, &size))
        return NULL;
    PyObject *result = NULL;
    uint64_t max_size = PyLong_AsUnsignedLongLong(size);
    if (PyErr_Occurred())
        goto done;
    if (table.len % ITEM_SIZE) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are no whole number of items of %d", table.len, ITEM_SIZE);
        goto done;
    }
    size_t count = (size_t)table.len / ITEM_SIZE, bad;
    Py_BEGIN_ALLOW_THREADS
    bad = check_table(table.buf, count, max_size);
    Py_END_ALLOW_THREADS
    result = PyLong_FromSsize_t(bad == count ? -1 : (Py_ssize_t)bad);
done:
    PyBuffer_Release(&table);
    return result;
}

/* The ids of a table, or an exception. */
static int take_ids(const Py_buffer *table, Py_ssize_t offset, Py_ssize_t stride, Py_ssize_t count, struct ids *ids)
{
    if (offset < 0 || stride < ID_SIZE || count < 0 || (uint64_t)count > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd ids every %zd bytes from %zd on", count, stride, offset);
        return -1;
    }
    /* The room for the starts of ids, counted without a product that could overflow. */
    Py_ssize_t room = table->len - ID_SIZE - offset;
    if (count && (table->len < ID_SIZE || room < 0 || room / stride < count - 1)) {
        PyErr_Format(PyExc_ValueError, "%zd ids every %zd bytes from %zd on are more than %zd bytes", count, stride, offset,
                     table->len);
        return -1;
    }
    *ids = (struct ids){(const uint8_t *)table->buf + (count ? offset : 0), (size_t)stride, (uint32_t)count};
    return 0;
}

/* An order of as many ids, or an exception. */
static int check_order(const Py_buffer *order, Py_ssize_t count)
{
    if (check_words(order))
        return -1;
    if (order->len / (Py_ssize_t)sizeof(uint32_t) == count)
        return 0;
    PyErr_Format(PyExc_ValueError, "an order of %zd for %zd ids", order->len / (Py_ssize_t)sizeof(uint32_t), count);
    return -1;
}

static PyObject *py_sort_ids(PyObject *module, PyObject *args)
{
    Py_buffer table;
    Py_ssize_t offset, stride, count;
    struct ids ids;
    PyObject *order = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnn:sort_ids", &table, &offset, &stride, &count))
        return NULL;
    if (!take_ids(&table, offset, stride, count, &ids))
        order = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    if (order) {
        uint32_t *numbers = (uint32_t *)PyBytes_AsString(order);
        int failed;
        Py_BEGIN_ALLOW_THREADS
        failed = sort_ids(ids, numbers);
        Py_END_ALLOW_THREADS
        if (failed) {
            Py_DECREF(order);
            order = PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&table);
    return order;
}

static PyObject *py_unique_ids(PyObject *module, PyObject *args)
{
    Py_buffer table, order;
    Py_ssize_t offset, stride, count;
    struct ids ids;
    PyObject *unique = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnny*:unique_ids", &table, &offset, &stride, &count, &order))
        return NULL;
    if (take_ids(&table, offset, stride, count, &ids) || check_order(&order, count))
        goto done;
    /* Twice through the table is quicker than moving what may be a few hundred megabytes into a bytes object of the right size. */
    Py_ssize_t different;
    Py_BEGIN_ALLOW_THREADS
    different = unique_ids(ids, order.buf, NULL);
    Py_END_ALLOW_THREADS
    if (different < 0) {
        PyErr_SetString(PyExc_ValueError, "the order names an id that is not in the table");
        goto done;
    }
    unique = new_ids(different);
    if (!unique)
        goto done;
    uint8_t *to = (uint8_t *)PyBytes_AsString(unique);
    Py_BEGIN_ALLOW_THREADS
    unique_ids(ids, order.buf, to);
    Py_END_ALLOW_THREADS
done:
    PyBuffer_Release(&order);
    PyBuffer_Release(&table);
    return unique;
}

static PyObject *py_first_positions(PyObject *module, PyObject *args)
{
    Py_buffer table, order;
    Py_ssize_t offset, stride, count;
    struct ids ids;
    PyObject *positions = NULL;
    int failed;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnny*:first_positions", &table, &offset, &stride, &count, &order))
        return NULL;
    if (take_ids(&table, offset, stride, count, &ids) || check_order(&order, count))
        goto done;
    positions = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    if (!positions)
        goto done;
    uint32_t *first = (uint32_t *)(void *)PyBytes_AsString(positions);
    Py_BEGIN_ALLOW_THREADS
    failed = first_positions(ids, order.buf, first);
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_SetString(PyExc_ValueError, "the order names an id that is not in the table");
        Py_CLEAR(positions);
    }
done:
    PyBuffer_Release(&order);
    PyBuffer_Release(&table);
    return positions;
}

/* A file that is read whole. */
struct file {
    const char *path;
    int descriptor;
    size_t size;
    char *content;
};

/* Leaves the descriptor at -1 for whatever isn't a regular file of a size from 1 to the limit. */
static void open_files(struct file *files, Py_ssize_t count, size_t limit)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        struct file *file = &files[i];
        struct stat found;
        file->descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (file->descriptor < 0)
            continue;
        if (fstat(file->descriptor, &found) || !S_ISREG(found.st_mode) || found.st_size < 1 ||
            (uintmax_t)found.st_size > limit) {
            close(file->descriptor);
            file->descriptor = -1;
        } else
            file->size = (size_t)found.st_size;
    }
}

/* Closes all. The content is NULL afterwards where not all of it could be read. */
static void read_and_close(struct file *files, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        struct file *file = &files[i];
        if (file->descriptor < 0)
            continue;
        size_t done = 0;
        while (file->content && done < file->size) {
            ssize_t got = read(file->descriptor, file->content + done, file->size - done);
            if (got > 0)
                done += (size_t)got;
            else
                file->content = NULL;
        }
        close(file->descriptor);
    }
}

static PyObject *py_read_files(PyObject *module, PyObject *args)
{
    PyObject *given, *paths, *contents = NULL;
    Py_ssize_t limit;
    (void)module;
    if (!PyArg_ParseTuple(args, "On:read_files", &given, &limit))
        return NULL;
    /* A tuple, for a list could be changed while other threads run. */
    paths = PySequence_Tuple(given);
    if (!paths)
        return NULL;
    Py_ssize_t count = PyTuple_Size(paths);
    struct file *files = PyMem_Calloc(count ? (size_t)count : 1, sizeof *files);
    if (!files) {
        Py_DECREF(paths);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *path;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(paths, i), &path, NULL))
            goto done;
        files[i].path = path;
    }
    Py_BEGIN_ALLOW_THREADS
    open_files(files, count, limit > 0 ? (size_t)limit : 0);
    Py_END_ALLOW_THREADS
    contents = PyList_New(count);
    for (Py_ssize_t i = 0; contents && i < count; i++) {
        PyObject *content = NULL;
        if (files[i].descriptor >= 0)
            content = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)files[i].size);
        if (content)
            files[i].content = PyBytes_AsString(content);
        else {
            PyErr_Clear();
            Py_INCREF(Py_None);
            content = Py_None;
        }
        PyList_SetItem(contents, i, content);
    }
    Py_BEGIN_ALLOW_THREADS
    read_and_close(files, count);
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; contents && i < count; i++)
        if (!files[i].content) {
            Py_INCREF(Py_None);
            PyList_SetItem(contents, i, Py_None);
        }
done:
    PyMem_Free(files);
    Py_DECREF(paths);
    return contents;
}

/* Returns 0, or the error number. */
static int write_whole(int descriptor, const Py_buffer *buffer, uint64_t offset)
{
    const char *from = buffer->buf;
    size_t left = (size_t)buffer->len;
    while (left) {
        ssize_t done = pwrite(descriptor, from, left, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done ? errno : EIO;
        from += done;
        offset += (uint64_t)done;
        left -= (size_t)done;
    }
    return 0;
}

static PyObject *py_write_buffers(PyObject *module, PyObject *args)
{
    int descriptor, error = 0;
    PyObject *sequence, *result = NULL;
    Py_buffer offsets;
    (void)module;
    if (!PyArg_ParseTuple(args, "iOy*:write_buffers", &descriptor, &sequence, &offsets))
        return NULL;
    /* A tuple of our own, which nobody can change while other threads run. */
    PyObject *buffers = PySequence_Tuple(sequence);
    if (!buffers) {
        PyBuffer_Release(&offsets);
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(buffers), taken = 0;
    Py_buffer *views = PyMem_Malloc(((size_t)count + 1) * sizeof *views);
    if (!views)
        PyErr_NoMemory();
    else if (offsets.len / (Py_ssize_t)sizeof(uint64_t) != count || offsets.len % (Py_ssize_t)sizeof(uint64_t))
        PyErr_SetString(PyExc_ValueError, "there has to be an offset for each buffer");
    else
        while (taken < count && !PyObject_GetBuffer(PyTuple_GetItem(buffers, taken), &views[taken], PyBUF_SIMPLE))
            taken++;
    if (views && taken == count && !PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count && !error; i++) {
            uint64_t offset;
            memcpy(&offset, (const char *)offsets.buf + i * (Py_ssize_t)sizeof offset, sizeof offset);
            error = write_whole(descriptor, &views[i], offset);
        }
        Py_END_ALLOW_THREADS
        if (error) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
        } else {
            Py_INCREF(Py_None);
            result = Py_None;
        }
    }
    while (taken)
        PyBuffer_Release(&views[--taken]);
    PyMem_Free(views);
    Py_DECREF(buffers);
    PyBuffer_Release(&offsets);
    return result;
}

static PyObject *py_keep_memory(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
#ifdef __GLIBC__
    /* The first is the largest that glibc takes. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    /* What one thread frees another can use: otherwise each of a mount's threads keeps memory of its own. */
    mallopt(M_ARENA_MAX, 2);
#endif
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"best_level", py_best_level, METH_NOARGS, NULL},
    {"cut_kernel", py_cut_kernel, METH_VARARGS, NULL},
    {"hash_kernel", py_hash_kernel, METH_VARARGS, NULL},
    {"find_cuts", py_find_cuts, METH_VARARGS, NULL},
    {"hash_ranges", py_hash_ranges, METH_VARARGS, NULL},
    {"hash_buffers", py_hash_buffers, METH_VARARGS, NULL},
    {"is_zero", py_is_zero, METH_VARARGS, NULL},
    {"siphash", py_siphash, METH_VARARGS, NULL},
    {"check_table", py_check_table, METH_VARARGS, NULL},
    {"sort_ids", py_sort_ids, METH_VARARGS, NULL},
    {"unique_ids", py_unique_ids, METH_VARARGS, NULL},
    {"first_positions", py_first_positions, METH_VARARGS, NULL},
    {"read_files", py_read_files, METH_VARARGS, NULL},
    {"write_buffers", py_write_buffers, METH_VARARGS, NULL},
    {"keep_memory", py_keep_memory, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "desync.chunking._native", .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}

/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Which piece of data is in which lane. A lane that is through with its piece takes the next one, so pieces needn't be of equal
 * length. The longest come first: what is left at the end, when lanes run out of work, is then short. */
#include "sha512.h"

#include <stdlib.h>
#include <string.h>

enum {
    STATE_WORDS = 8,
    LENGTH_SIZE = 16, /* the length in bits ends the last block, as 128 bits */
};

static const uint64_t initial_state[STATE_WORDS] = {
    0x22312194fc2bf72c, 0x9f555fa3c84c64c2, 0x2393b86b6f53b151, 0x963877195940eabd,
    0x96283ee2a88effe3, 0xbe5e1e2553863992, 0x2b0199fc2c85b8aa, 0x0eb72ddc81c52ca2,
};

sha512_lanes *hash_kernel(enum level level, unsigned *lanes, const char **name)
{
#ifdef DESYNC_X86
    if (level >= LEVEL_AVX512) {
        *lanes = 8;
        *name = "avx512";
        return sha512_lanes_avx512;
    }
    if (level >= LEVEL_AVX2) {
        *lanes = 4;
        *name = "avx2";
        return sha512_lanes_avx2;
    }
#endif
    (void)level;
    *lanes = 0;
    *name = NULL;
    return NULL;
}

int fill_lanes(const struct hash_job *jobs, size_t count)
{
    size_t longest = 0, total = 0;
    for (size_t i = 0; i < count; i++) {
        total += jobs[i].size;
        if (jobs[i].size > longest)
            longest = jobs[i].size;
    }
    /* A lane has about 0.4 times the speed of OpenSSL's code for one piece, with 4 lanes as with 8. */
    return longest <= total / 8 * 3;
}

static int longest_first(const void *a, const void *b)
{
    size_t size_a = ((const struct hash_job *)a)->size, size_b = ((const struct hash_job *)b)->size;
    return (size_a < size_b) - (size_a > size_b);
}

/* What a lane is doing: first the whole blocks of its job, then the one or two with the rest and the padding. */
struct lane {
    struct hash_job *job; /* NULL: idle */
    const uint8_t *data;
    size_t blocks;
    int in_tail;
    uint8_t tail[2 * SHA512_BLOCK];
};

static void store_big_endian_64(uint8_t *bytes, uint64_t value)
{
    for (int i = 7; i >= 0; i--) {
        bytes[i] = (uint8_t)value;
        value >>= 8;
    }
}

static void begin_tail(struct lane *lane)
{
    size_t size = lane->job->size, rest = size % SHA512_BLOCK;
    size_t padded = rest + 1 + LENGTH_SIZE <= SHA512_BLOCK ? SHA512_BLOCK : 2 * SHA512_BLOCK;
    memset(lane->tail, 0, padded);
    if (rest)
        memcpy(lane->tail, lane->job->data + size - rest, rest);
    lane->tail[rest] = 0x80;
    store_big_endian_64(lane->tail + padded - 8, (uint64_t)size << 3);
    store_big_endian_64(lane->tail + padded - 16, (uint64_t)size >> 61);
    lane->data = lane->tail;
    lane->blocks = padded / SHA512_BLOCK;
    lane->in_tail = 1;
}

void hash_jobs(sha512_lanes *kernel, unsigned lanes, struct hash_job *jobs, size_t count)
{
    _Alignas(64) uint64_t state[STATE_WORDS * SHA512_MAX_LANES] = {0};
    struct lane lane[SHA512_MAX_LANES];
    struct hash_job *next = jobs, *stop = jobs + count;

    qsort(jobs, count, sizeof *jobs, longest_first);
    for (unsigned l = 0; l < lanes; l++) {
        lane[l].job = NULL;
        lane[l].blocks = 0;
    }
    for (;;) {
        const struct lane *busy = NULL;
        size_t blocks = SIZE_MAX;
        for (unsigned l = 0; l < lanes; l++) {
            struct lane *own = &lane[l];
            if (own->blocks == 0 && own->job && own->in_tail) {
                for (unsigned w = 0; w < SHA512_256_SIZE / 8; w++)
                    store_big_endian_64(own->job->digest + 8 * w, state[w * lanes + l]);
                own->job = NULL;
            }
            if (!own->job && next < stop) {
                own->job = next++;
                own->data = own->job->data;
                own->blocks = own->job->size / SHA512_BLOCK;
                own->in_tail = 0;
                for (unsigned w = 0; w < STATE_WORDS; w++)
                    state[w * lanes + l] = initial_state[w];
            }
            if (!own->job)
                continue;
            if (own->blocks == 0)
                begin_tail(own);
            if (own->blocks < blocks) {
                blocks = own->blocks;
                busy = own;
            }
        }
        if (!busy)
            return;
        /* An idle lane reads what a busy one reads; what comes of it isn't looked at. */
        const uint8_t *data[SHA512_MAX_LANES];
        for (unsigned l = 0; l < lanes; l++)
            data[l] = lane[l].job ? lane[l].data : busy->data;
        kernel(state, data, blocks);
        for (unsigned l = 0; l < lanes; l++) {
            if (!lane[l].job)
                continue;
            lane[l].data += blocks * SHA512_BLOCK;
            lane[l].blocks -= blocks;
        }
    }
}

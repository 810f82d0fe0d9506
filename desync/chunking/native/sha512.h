/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * SHA-512/256 (FIPS 180-4) of many pieces of data at once: one piece in each 64-bit lane of the vector registers. */
#ifndef DESYNC_SHA512_H
#define DESYNC_SHA512_H

#include <stddef.h>
#include <stdint.h>

#include "levels.h"

enum {
    SHA512_BLOCK = 128, /* bytes that the hash takes at a time */
    SHA512_256_SIZE = 32,
    SHA512_MAX_LANES = 8,
};

/* Something to be hashed, and where its digest goes. */
struct hash_job {
    const uint8_t *data;
    size_t size;
    uint8_t *digest;
};

/* Hash `blocks` blocks in each lane. Word w of lane l's state is state[w * lanes + l]; the state is aligned to 64 bytes. */
typedef void sha512_lanes(uint64_t *state, const uint8_t *const *data, size_t blocks);

#ifdef DESYNC_X86
sha512_lanes sha512_lanes_avx2;   /* 4 lanes */
sha512_lanes sha512_lanes_avx512; /* 8 lanes */
#endif

/* The kernel of a level that this processor can run, how many lanes it has, and its name; NULL if there is none. */
sha512_lanes *hash_kernel(enum level level, unsigned *lanes, const char **name);

/* Whether so many jobs of these sizes are worth the lanes: of only a few, or of one that is far longer than the others, most
 * lanes would stay idle most of the time, and each lane for itself is slow. */
int fill_lanes(const struct hash_job *jobs, size_t count);

/* Do all jobs. Changes their order. */
void hash_jobs(sha512_lanes *kernel, unsigned lanes, struct hash_job *jobs, size_t count);

extern const uint64_t sha512_round_constants[80];

#endif

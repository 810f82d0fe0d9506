/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * SipHash-2-4 with an output of 64 bits. */
#ifndef DESYNC_SIPHASH_H
#define DESYNC_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

enum { SIPHASH_KEY_SIZE = 16 };

/* Up to eight bytes as a little-endian number. */
static inline uint64_t sip_word(const uint8_t *bytes, size_t count)
{
    uint64_t word = 0;
    for (size_t i = 0; i < count; i++)
        word |= (uint64_t)bytes[i] << 8 * i;
    return word;
}

static inline uint64_t sip_rotate(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void sip_rounds(uint64_t v[4], int rounds)
{
    while (rounds--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = sip_rotate(v[1], 13) ^ v[0];
        v[3] = sip_rotate(v[3], 16) ^ v[2];
        v[0] = sip_rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = sip_rotate(v[1], 17) ^ v[2];
        v[3] = sip_rotate(v[3], 21) ^ v[0];
        v[2] = sip_rotate(v[2], 32);
    }
}

static inline uint64_t siphash(const uint8_t *data, size_t size, const uint8_t key[SIPHASH_KEY_SIZE])
{
    const uint64_t k0 = sip_word(key, 8), k1 = sip_word(key + 8, 8);
    uint64_t v[4] = {
        k0 ^ UINT64_C(0x736f6d6570736575),
        k1 ^ UINT64_C(0x646f72616e646f6d),
        k0 ^ UINT64_C(0x6c7967656e657261),
        k1 ^ UINT64_C(0x7465646279746573),
    };
    const uint64_t last = (uint64_t)size << 56;
    for (; size >= 8; data += 8, size -= 8) {
        const uint64_t word = sip_word(data, 8);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    const uint64_t rest = last | sip_word(data, size);
    v[3] ^= rest;
    sip_rounds(v, 2);
    v[0] ^= rest;
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif

/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef DESYNC_ZEROS_H
#define DESYNC_ZEROS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether `size` bytes are all zero. Stops at the first piece with another byte. */
static inline int is_zero(const uint8_t *data, size_t size)
{
    enum { PIECE = 256 };
    while (size >= PIECE) {
        uint64_t any = 0;
        for (size_t i = 0; i < PIECE; i += sizeof(uint64_t)) {
            uint64_t word;
            memcpy(&word, data + i, sizeof word);
            any |= word;
        }
        if (any)
            return 0;
        data += PIECE;
        size -= PIECE;
    }
    uint8_t any = 0;
    while (size--)
        any |= *data++;
    return any == 0;
}

#endif

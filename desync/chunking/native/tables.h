/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Tables of ids, as an index holds them. */
#ifndef DESYNC_TABLES_H
#define DESYNC_TABLES_H

#include <stddef.h>
#include <stdint.h>

#define ID_SIZE 32
#define ITEM_SIZE 40 /* an item of an index: where the chunk ends, 64 bits, little-endian, and its id */

/* The number of the first item that doesn't end after the one before it, or more than `max_size` bytes after it; `count` if there
 * is none. */
size_t check_table(const uint8_t *table, size_t count, uint64_t max_size);

/* Ids that stand `stride` bytes apart. */
struct ids {
    const uint8_t *first;
    size_t stride;
    uint32_t count;
};

/* Write into `order` the numbers of the ids so that these ascend, and of equal ones the first comes first. Takes as much memory
 * again as `order`, and at most 8 MiB besides. Returns 0, or -1 for lack of memory. */
int sort_ids(struct ids ids, uint32_t *order);

/* Copy each id once, in the order given, into `unique`, unless that is NULL. Equal ids are next to each other in `order`, which
 * holds as many numbers as there are ids. Returns how many are different, or -1 if a number isn't of an id. */
ptrdiff_t unique_ids(struct ids ids, const uint32_t *order, uint8_t *unique);

/* Write into `first` for each id the number of the first one that is equal; `order` is what sort_ids wrote. Returns 0, or -1 if
 * `order` holds a number that isn't of an id. */
int first_positions(struct ids ids, const uint32_t *order, uint32_t *first);

#endif

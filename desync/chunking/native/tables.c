/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Checking, sorting and copying tables of ids.
 *
 * Ids are digests, so their first two bytes divide any number of them evenly, and sorting is one pass that counts, one that
 * distributes, and many sorts of a few. What isn't evenly distributed, because someone made it so, is divided again by the next
 * two bytes, and so on: 16 times at most, whatever the input. */
#include "tables.h"

#include <stdlib.h>
#include <string.h>

enum {
    DIGIT_SIZE = 2,              /* bytes that one distribution looks at */
    BUCKETS = 1 << 8 * DIGIT_SIZE,
    FEW = 4096,                  /* as many are sorted by comparing */
    RUN = 12,                    /* as many are sorted by insertion */
    AHEAD = 16,                  /* how many ids the next reads are announced ahead */
};

static uint64_t little_endian_64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static uint64_t big_endian_64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

size_t check_table(const uint8_t *table, size_t count, uint64_t max_size)
{
    uint64_t previous = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t end = little_endian_64(table + i * ITEM_SIZE);
        if (end <= previous || end - previous > max_size)
            return i;
        previous = end;
    }
    return count;
}

static const uint8_t *id_at(const struct ids *ids, uint32_t number)
{
    return ids->first + (size_t)number * ids->stride;
}

static void announce(const struct ids *ids, const uint32_t *numbers, size_t i, size_t count)
{
#if defined(__GNUC__)
    if (i + AHEAD < count)
        __builtin_prefetch(id_at(ids, numbers[i + AHEAD]));
#else
    (void)ids, (void)numbers, (void)i, (void)count;
#endif
}

/* An id to be compared: eight of its bytes as a number, so that the table is hardly ever looked at again. */
struct entry {
    uint64_t key;
    uint32_t number;
};

struct sorting {
    struct ids ids;
    uint32_t *scratch;        /* as long as the order */
    struct entry *entries[2]; /* FEW each */
    size_t depth;             /* bytes that all ids of the part being sorted have in common */
};

static int precedes(const struct sorting *sorting, const struct entry *a, const struct entry *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    size_t known = sorting->depth + 8;
    if (known >= ID_SIZE)
        return 0;
    return memcmp(id_at(&sorting->ids, a->number) + known, id_at(&sorting->ids, b->number) + known, ID_SIZE - known) < 0;
}

/* Sort runs by insertion, then merge them, back and forth between the two arrays. Stable. */
static void sort_few(struct sorting *sorting, uint32_t *order, size_t count)
{
    struct entry *from = sorting->entries[0], *to = sorting->entries[1];
    /* The last bytes of the ids, if fewer than eight are left: those before them are the same in all. */
    size_t depth = sorting->depth;
    if (depth > ID_SIZE - 8)
        depth = ID_SIZE - 8;
    for (size_t i = 0; i < count; i++) {
        announce(&sorting->ids, order, i, count);
        from[i] = (struct entry){big_endian_64(id_at(&sorting->ids, order[i]) + depth), order[i]};
    }
    for (size_t start = 0; start < count; start += RUN) {
        size_t stop = count - start < RUN ? count : start + RUN;
        for (size_t i = start + 1; i < stop; i++) {
            struct entry entry = from[i];
            size_t at = i;
            for (; at > start && precedes(sorting, &entry, &from[at - 1]); at--)
                from[at] = from[at - 1];
            from[at] = entry;
        }
    }
    for (size_t width = RUN; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t middle = count - start < width ? count : start + width;
            size_t stop = count - start < 2 * width ? count : start + 2 * width;
            size_t a = start, b = middle;
            for (size_t i = start; i < stop; i++) {
                int take_b = a == middle || (b < stop && precedes(sorting, &from[b], &from[a]));
                to[i] = from[take_b ? b++ : a++];
            }
        }
        struct entry *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < count; i++)
        order[i] = from[i].number;
}

static uint32_t digit_of(const struct sorting *sorting, uint32_t number)
{
    const uint8_t *digit = id_at(&sorting->ids, number) + sorting->depth;
    return (uint32_t)digit[0] << 8 | digit[1];
}

/* Sort numbers that ascend, of ids that have their first sorting->depth bytes in common. */
static int sort_part(struct sorting *sorting, uint32_t *order, size_t count)
{
    if (count < 2 || sorting->depth >= ID_SIZE)
        return 0;
    if (count <= FEW) {
        sort_few(sorting, order, count);
        return 0;
    }
    uint32_t *ends = calloc(BUCKETS, sizeof *ends);
    if (!ends)
        return -1;
    for (size_t i = 0; i < count; i++) {
        announce(&sorting->ids, order, i, count);
        ends[digit_of(sorting, order[i])]++;
    }
    uint32_t sum = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        uint32_t size = ends[i];
        ends[i] = sum; /* where the bucket starts; distributing moves it to where it ends */
        sum += size;
    }
    for (size_t i = 0; i < count; i++) {
        announce(&sorting->ids, order, i, count);
        sorting->scratch[ends[digit_of(sorting, order[i])]++] = order[i];
    }
    memcpy(order, sorting->scratch, count * sizeof *order);

    int failed = 0;
    size_t start = 0;
    sorting->depth += DIGIT_SIZE;
    for (size_t i = 0; i < BUCKETS && !failed; i++) {
        failed = sort_part(sorting, order + start, ends[i] - start);
        start = ends[i];
    }
    sorting->depth -= DIGIT_SIZE;
    free(ends);
    return failed;
}

int sort_ids(struct ids ids, uint32_t *order)
{
    struct sorting sorting = {.ids = ids};
    int failed = -1;
    for (uint32_t i = 0; i < ids.count; i++)
        order[i] = i;
    sorting.scratch = malloc(((size_t)ids.count + 1) * sizeof *order);
    sorting.entries[0] = malloc(FEW * sizeof(struct entry));
    sorting.entries[1] = malloc(FEW * sizeof(struct entry));
    if (sorting.scratch && sorting.entries[0] && sorting.entries[1])
        failed = sort_part(&sorting, order, ids.count);
    free(sorting.entries[1]);
    free(sorting.entries[0]);
    free(sorting.scratch);
    return failed;
}

ptrdiff_t unique_ids(struct ids ids, const uint32_t *order, uint8_t *unique)
{
    ptrdiff_t different = 0;
    const uint8_t *previous = NULL;
    for (uint32_t i = 0; i < ids.count; i++)
        if (order[i] >= ids.count)
            return -1;
    for (uint32_t i = 0; i < ids.count; i++) {
        announce(&ids, order, i, ids.count);
        const uint8_t *id = id_at(&ids, order[i]);
        if (previous && memcmp(previous, id, ID_SIZE) == 0)
            continue;
        if (unique)
            memcpy(unique + different * ID_SIZE, id, ID_SIZE);
        different++;
        previous = id;
    }
    return different;
}

int first_positions(struct ids ids, const uint32_t *order, uint32_t *first)
{
    uint32_t origin = 0;
    for (uint32_t i = 0; i < ids.count; i++)
        if (order[i] >= ids.count)
            return -1;
    for (uint32_t i = 0; i < ids.count; i++) {
        announce(&ids, order, i, ids.count);
        if (i == 0 || memcmp(id_at(&ids, order[i]), id_at(&ids, origin), ID_SIZE) != 0)
            origin = order[i];
        first[order[i]] = origin;
    }
    return 0;
}

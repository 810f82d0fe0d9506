/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Compares the kernels with the plainest possible code on random input, in buffers that end where the data ends, so that a
 * sanitizer sees any access beyond. With DESYNC_EMULATED the AVX-512 kernels run too, on any machine.
 *
 *     fuzz [ROUNDS [SEED]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuts.h"
#include "sha512.h"
#include "siphash.h"
#include "tables.h"
#include "zeros.h"

static uint64_t random_state;

static uint64_t random_64(void)
{
    /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static size_t below(size_t bound)
{
    return (size_t)(random_64() % bound);
}

static void fail(const char *what, const char *kernel, unsigned long round)
{
    fprintf(stderr, "%s differs: %s, round %lu\n", what, kernel, round);
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory) {
        fprintf(stderr, "no memory\n");
        exit(2);
    }
    return memory;
}

/* ---- cuts ---- */

static size_t plain_cut_length(const uint8_t *chunk, size_t size, const struct cut_rule *rule)
{
    if (rule->min == rule->max)
        return size < rule->max ? size : rule->max;
    for (size_t length = 1; length <= size; length++) {
        if (length >= rule->max)
            return length;
        if (length < rule->min || length < WINDOW)
            continue;
        uint32_t hash = 0;
        for (size_t i = 0; i < WINDOW; i++)
            hash ^= rotate_left(buzhash_table[chunk[length - WINDOW + i]], (unsigned)(WINDOW - 1 - i));
        if (hash % rule->discriminator == rule->discriminator - 1)
            return length;
    }
    return size;
}

static void fill(uint8_t *data, size_t size)
{
    switch (below(5)) {
    case 0:
        memset(data, 0, size);
        break;
    case 1:
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)below(3);
        break;
    case 2: /* zeros with something in between */
        memset(data, 0, size);
        for (size_t n = below(6); n && size; n--)
            data[below(size)] = (uint8_t)random_64();
        break;
    default:
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)random_64();
    }
}

static uint32_t random_discriminator(void)
{
    static const uint32_t special[] = {1, 2, 3, 49535, 0xfffffffe, 0xffffffff, 0x80000000, 0x80000001, 0x7fffffff, 0xfffffffb};
    switch (below(4)) {
    case 0:
        return (uint32_t)1 << below(32);
    case 1:
        return special[below(sizeof special / sizeof *special)];
    case 2:
        return (uint32_t)(1 + below(0xffffffff));
    default:
        return (uint32_t)(1 + below(5000));
    }
}

static void compare_cuts(match_finder *finder, const char *name, unsigned long round)
{
    size_t size = below(3) ? below(400) : below(20000);
    size_t margin = below(64); /* so that the data isn't always aligned alike */
    uint8_t *memory = allocate(margin + size), *data = memory + margin;
    struct cut_rule rule;
    fill(data, size);
    rule.min = below(4) ? 48 + below(300) : 1 + below(100);
    rule.max = (rule.min > WINDOW ? rule.min : WINDOW) + below(5000);
    rule.discriminator = random_discriminator();

    size_t start = below(size + 1), stop = start + below(size - start + 1);
    size_t first = rule.min > WINDOW || rule.min == rule.max ? rule.min : WINDOW;
    size_t room = (stop - start + first - 1) / first;
    uint32_t *ends = allocate(room * sizeof *ends);
    size_t count = find_cuts(finder, data, start, stop, size, &rule, ends);
    size_t at = start;
    for (size_t i = 0; i < count; i++) {
        at += plain_cut_length(data + at, size - at, &rule);
        if (ends[i] != at)
            fail("a cut", name, round);
    }
    if (at < stop)
        fail("the number of cuts", name, round);
    free(ends);
    free(memory);
}

/* Every hash, the largest above all: a divisor finds just the multiples less one. */
static void compare_divisions(unsigned long round)
{
    uint32_t d = random_discriminator();
    struct divisor divisor = divisor_of(d);
    uint32_t hashes[] = {0, 1, d - 1, d, d - 2, 2 * d - 1, UINT32_MAX, UINT32_MAX - 1, UINT32_MAX / d * d - 1, (uint32_t)random_64()};
    for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++)
        if (is_cut(hashes[i], divisor) != (hashes[i] % d == d - 1))
            fail("a division", "is_cut", round);
}

/* ---- SHA-512/256 ---- */

static uint64_t rotate_right_64(uint64_t value, int count)
{
    return value >> count | value << (64 - count);
}

static void plain_block(uint64_t state[8], const uint8_t *block)
{
    uint64_t w[80], v[8];
    for (int i = 0; i < 16; i++) {
        w[i] = 0;
        for (int j = 0; j < 8; j++)
            w[i] = w[i] << 8 | block[8 * i + j];
    }
    for (int i = 16; i < 80; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotate_right_64(w[i - 15], 1) ^ rotate_right_64(w[i - 15], 8) ^ w[i - 15] >> 7) +
               (rotate_right_64(w[i - 2], 19) ^ rotate_right_64(w[i - 2], 61) ^ w[i - 2] >> 6);
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 80; i++) {
        uint64_t sum_e = rotate_right_64(v[4], 14) ^ rotate_right_64(v[4], 18) ^ rotate_right_64(v[4], 41);
        uint64_t sum_a = rotate_right_64(v[0], 28) ^ rotate_right_64(v[0], 34) ^ rotate_right_64(v[0], 39);
        uint64_t t = v[7] + sum_e + ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha512_round_constants[i] + w[i];
        uint64_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t;
        v[0] = t + sum_a + majority;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

static void plain_sha512_256(const uint8_t *data, size_t size, uint8_t *digest)
{
    uint64_t state[8] = {0x22312194fc2bf72c, 0x9f555fa3c84c64c2, 0x2393b86b6f53b151, 0x963877195940eabd,
                         0x96283ee2a88effe3, 0xbe5e1e2553863992, 0x2b0199fc2c85b8aa, 0x0eb72ddc81c52ca2};
    size_t padded = (size + 1 + 16 + 127) / 128 * 128;
    uint8_t *message = allocate(padded);
    memset(message, 0, padded);
    if (size)
        memcpy(message, data, size);
    message[size] = 0x80;
    for (int i = 0; i < 8; i++)
        message[padded - 1 - i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < padded; at += 128)
        plain_block(state, message + at);
    for (int i = 0; i < SHA512_256_SIZE; i++)
        digest[i] = (uint8_t)(state[i / 8] >> (56 - i % 8 * 8));
    free(message);
}

static void check_plain_sha512_256(void)
{
    /* FIPS 180's example: SHA-512/256 of "abc". */
    static const uint8_t expected[] = {0x53, 0x04, 0x8e, 0x26, 0x81, 0x94, 0x1e, 0xf9, 0x9b, 0x2e, 0x29, 0xb7, 0x6b, 0x4c, 0x7d, 0xab,
                                       0xe4, 0xc2, 0xd0, 0xc6, 0x34, 0xfc, 0x6d, 0x46, 0xe0, 0xe2, 0xf1, 0x31, 0x07, 0xe7, 0xaf, 0x23};
    uint8_t digest[SHA512_256_SIZE];
    plain_sha512_256((const uint8_t *)"abc", 3, digest);
    if (memcmp(digest, expected, sizeof digest) != 0)
        fail("the digest of abc", "plain", 0);
}

static void compare_hashes(sha512_lanes *kernel, unsigned lanes, const char *name, unsigned long round)
{
    enum { MOST = 24 };
    size_t count = below(MOST);
    struct hash_job jobs[MOST] = {{0}};
    uint8_t *data[MOST], digests[MOST][SHA512_256_SIZE];
    size_t sizes[MOST];
    for (size_t i = 0; i < count; i++) {
        sizes[i] = below(4) ? below(300) : below(3000);
        data[i] = allocate(sizes[i]);
        fill(data[i], sizes[i]);
        jobs[i] = (struct hash_job){data[i], sizes[i], digests[i]};
    }
    fill_lanes(jobs, count);
    hash_jobs(kernel, lanes, jobs, count);
    for (size_t i = 0; i < count; i++) {
        uint8_t expected[SHA512_256_SIZE];
        plain_sha512_256(data[i], sizes[i], expected);
        if (memcmp(digests[i], expected, sizeof expected) != 0)
            fail("a digest", name, round);
        free(data[i]);
    }
}

/* ---- tables ---- */

static void compare_tables(unsigned long round)
{
    uint32_t count = (uint32_t)(below(8) ? below(200) : below(12000));
    size_t stride = ID_SIZE + below(12), size = count ? (count - 1) * stride + ID_SIZE : 0;
    uint8_t *table = allocate(size), *unique = NULL;
    size_t alike = below(ID_SIZE + 1), kinds = 1 + below(300);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *id = table + i * stride;
        memset(id, 7, ID_SIZE);
        for (size_t j = alike; j < ID_SIZE; j++)
            id[j] = j + 4 < ID_SIZE ? 1 : (uint8_t)below(kinds);
    }
    struct ids ids = {table, stride, count};
    uint32_t *order = allocate(count * sizeof *order);
    uint8_t *seen = allocate(count);
    if (count)
        memset(seen, 0, count);
    if (sort_ids(ids, order) != 0)
        fail("memory", "sort_ids", round);
    ptrdiff_t different = count != 0;
    for (uint32_t i = 0; i < count; i++) {
        if (order[i] >= count || seen[order[i]]++)
            fail("the order", "sort_ids", round);
        if (i == 0)
            continue;
        int comparison = memcmp(table + order[i - 1] * stride, table + order[i] * stride, ID_SIZE);
        if (comparison > 0 || (comparison == 0 && order[i - 1] > order[i]))
            fail("the order", "sort_ids", round);
        different += comparison != 0;
    }
    if (unique_ids(ids, order, NULL) != different)
        fail("the number", "unique_ids", round);
    unique = allocate((size_t)different * ID_SIZE);
    unique_ids(ids, order, unique);
    for (ptrdiff_t i = 1; i < different; i++)
        if (memcmp(unique + (i - 1) * ID_SIZE, unique + i * ID_SIZE, ID_SIZE) >= 0)
            fail("the ids", "unique_ids", round);
    uint32_t *first = allocate(count * sizeof *first);
    if (first_positions(ids, order, first) != 0)
        fail("an order", "first_positions", round);
    for (uint32_t i = 0; i < count; i++)
        if (first[i] > i || memcmp(table + first[i] * stride, table + i * stride, ID_SIZE) != 0 || first[first[i]] != first[i])
            fail("a position", "first_positions", round);
    free(first);
    if (count) {
        order[below(count)] = count;
        if (unique_ids(ids, order, NULL) != -1)
            fail("a wrong number", "unique_ids", round);
    }
    check_table(table, size / ITEM_SIZE, random_64());
    free(unique);
    free(seen);
    free(order);
    free(table);
}

static void compare_zeros(unsigned long round)
{
    size_t size = below(2000);
    uint8_t *data = allocate(size);
    memset(data, 0, size);
    if (!is_zero(data, size))
        fail("zeros", "is_zero", round);
    if (size) {
        data[below(size)] = (uint8_t)(1 + below(255));
        if (is_zero(data, size))
            fail("something else", "is_zero", round);
    }
    free(data);
}

/* The rounds written out as the definition of SipHash has them, over a padded copy. */
static uint64_t plain_siphash(const uint8_t *data, size_t size, const uint8_t *key)
{
    uint64_t k[2], v0, v1, v2, v3;
    uint8_t padded[72] = {0};
    memcpy(padded, data, size);
    padded[size / 8 * 8 + 7] = (uint8_t)size;
    for (int i = 0; i < 2; i++) {
        k[i] = 0;
        for (int byte = 7; byte >= 0; byte--)
            k[i] = k[i] << 8 | key[8 * i + byte];
    }
    v0 = k[0] ^ 0x736f6d6570736575, v1 = k[1] ^ 0x646f72616e646f6d;
    v2 = k[0] ^ 0x6c7967656e657261, v3 = k[1] ^ 0x7465646279746573;
#define ROTATE(x, b) ((x) = (x) << (b) | (x) >> (64 - (b)))
#define ROUND                                                                                                                \
    v0 += v1, ROTATE(v1, 13), v1 ^= v0, ROTATE(v0, 32), v2 += v3, ROTATE(v3, 16), v3 ^= v2, v0 += v3, ROTATE(v3, 21), v3 ^= v0, \
        v2 += v1, ROTATE(v1, 17), v1 ^= v2, ROTATE(v2, 32)
    for (size_t at = 0; at <= size; at += 8) {
        uint64_t word = 0;
        for (int byte = 7; byte >= 0; byte--)
            word = word << 8 | padded[at + (size_t)byte];
        v3 ^= word;
        ROUND, ROUND;
        v0 ^= word;
    }
    v2 ^= 0xff;
    ROUND, ROUND, ROUND, ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

static void compare_siphash(unsigned long round)
{
    size_t size = below(64);
    uint8_t *data = allocate(size), *key = allocate(SIPHASH_KEY_SIZE);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)random_64();
    for (size_t i = 0; i < SIPHASH_KEY_SIZE; i++)
        key[i] = (uint8_t)random_64();
    if (siphash(data, size, key) != plain_siphash(data, size, key))
        fail("SipHash", "siphash", round);
    free(key);
    free(data);
}

struct kernel {
    const char *name;
    match_finder *finder;
    sha512_lanes *lanes;
    unsigned lane_count;
    int runs; /* on this machine */
};

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const struct kernel kernels[] = {
        {"bytewise", find_match_bytewise, NULL, 0, 1},
#ifdef DESYNC_VECTORS
        {"portable", find_match_portable, NULL, 0, 1},
#endif
#ifdef DESYNC_X86
#ifdef DESYNC_EMULATED
        {"emulated avx2", find_match_avx2, sha512_lanes_avx2, 4, 1},
        {"emulated avx512", find_match_avx512, sha512_lanes_avx512, 8, 1},
#else
        {"avx2", find_match_avx2, sha512_lanes_avx2, 4, __builtin_cpu_supports("avx2")},
        {"avx512", find_match_avx512, sha512_lanes_avx512, 8,
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi")},
#endif
#endif
    };
    check_plain_sha512_256();
    for (unsigned long round = 0; round < rounds; round++) {
        compare_divisions(round);
        compare_tables(round);
        compare_zeros(round);
        compare_siphash(round);
        for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
            if (!kernels[k].runs)
                continue;
            compare_cuts(kernels[k].finder, kernels[k].name, round);
            if (kernels[k].lanes)
                compare_hashes(kernels[k].lanes, kernels[k].lane_count, kernels[k].name, round);
        }
    }
    printf("%lu rounds:", rounds);
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
        printf(" %s%s;", kernels[k].name, kernels[k].runs ? "" : " not on this machine");
    printf(" no difference\n");
    return 0;
}

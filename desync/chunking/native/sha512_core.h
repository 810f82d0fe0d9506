/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The compression function of SHA-512 on vectors of 64-bit lanes. The file that includes this defines
 *   KERNEL           the function's name
 *   TARGET           its attributes
 *   VECTOR, LANES    the vector type, and how many lanes it has
 *   ADD(a, b)        sum of each lane
 *   XOR3(a, b, c)
 *   CHOOSE(e, f, g)  f where a bit of e is set, g elsewhere
 *   MAJORITY(a, b, c)
 *   ROTATE_RIGHT(a, n), SHIFT_RIGHT(a, n)
 *   ROTATE_RIGHT_8(a)
 *   BROADCAST(word)  the same word in each lane
 *   load_message(VECTOR message[16], const uint8_t *const *data)
 *                    words 0..15 of a block of each lane, in native byte order
 * The names are FIPS 180-4's. */

/* In this order, because a compiler that has all terms of a before it adds up e runs out of registers. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                                         \
    do {                                                                                                                         \
        VECTOR t = ADD(ADD(h, ADD(w[i], BROADCAST(constants[i]))), CHOOSE(e, f, g));                                             \
        t = ADD(t, XOR3(ROTATE_RIGHT(e, 14), ROTATE_RIGHT(e, 18), ROTATE_RIGHT(e, 41)));                                         \
        d = ADD(d, t);                                                                                                           \
        t = ADD(t, MAJORITY(a, b, c));                                                                                           \
        h = ADD(t, XOR3(ROTATE_RIGHT(a, 28), ROTATE_RIGHT(a, 34), ROTATE_RIGHT(a, 39)));                                         \
    } while (0)

/* Word i of the message schedule, which has just been used, becomes word i + 16. */
#define EXTEND(i)                                                                                                                \
    do {                                                                                                                         \
        VECTOR early = w[((i) + 1) % 16], late = w[((i) + 14) % 16];                                                             \
        VECTOR sigma0 = XOR3(ROTATE_RIGHT(early, 1), ROTATE_RIGHT_8(early), SHIFT_RIGHT(early, 7));                              \
        VECTOR sigma1 = XOR3(ROTATE_RIGHT(late, 19), ROTATE_RIGHT(late, 61), SHIFT_RIGHT(late, 6));                              \
        w[i] = ADD(ADD(w[i], w[((i) + 9) % 16]), ADD(sigma0, sigma1));                                                           \
    } while (0)

/* A round waits for the one before it, the schedule hardly for anything: one after the other keeps the vector units busy. On
 * AVX2 that is half as fast again as eight rounds, then eight words. */
#define ROUND_AND_EXTEND(a, b, c, d, e, f, g, h, i)                                                                              \
    do {                                                                                                                         \
        ROUND(a, b, c, d, e, f, g, h, i);                                                                                        \
        EXTEND(i);                                                                                                               \
    } while (0)

/* The names move instead of the values, and are back in place after eight rounds. */
#define EIGHT(STEP, i)                                                                                                           \
    do {                                                                                                                         \
        STEP(a, b, c, d, e, f, g, h, (i) + 0);                                                                                   \
        STEP(h, a, b, c, d, e, f, g, (i) + 1);                                                                                   \
        STEP(g, h, a, b, c, d, e, f, (i) + 2);                                                                                   \
        STEP(f, g, h, a, b, c, d, e, (i) + 3);                                                                                   \
        STEP(e, f, g, h, a, b, c, d, (i) + 4);                                                                                   \
        STEP(d, e, f, g, h, a, b, c, (i) + 5);                                                                                   \
        STEP(c, d, e, f, g, h, a, b, (i) + 6);                                                                                   \
        STEP(b, c, d, e, f, g, h, a, (i) + 7);                                                                                   \
    } while (0)

TARGET void KERNEL(uint64_t *state, const uint8_t *const *data, size_t blocks)
{
    VECTOR *states = (VECTOR *)state;
    const uint8_t *at[LANES];
    for (int l = 0; l < LANES; l++)
        at[l] = data[l];
    while (blocks--) {
        VECTOR w[16];
        load_message(w, at);
        for (int l = 0; l < LANES; l++)
            at[l] += SHA512_BLOCK;

        VECTOR a = states[0], b = states[1], c = states[2], d = states[3];
        VECTOR e = states[4], f = states[5], g = states[6], h = states[7];
        const uint64_t *constants = sha512_round_constants;
        for (; constants < sha512_round_constants + 64; constants += 16) {
            EIGHT(ROUND_AND_EXTEND, 0);
            EIGHT(ROUND_AND_EXTEND, 8);
        }
        EIGHT(ROUND, 0);
        EIGHT(ROUND, 8);
        states[0] = ADD(states[0], a);
        states[1] = ADD(states[1], b);
        states[2] = ADD(states[2], c);
        states[3] = ADD(states[3], d);
        states[4] = ADD(states[4], e);
        states[5] = ADD(states[5], f);
        states[6] = ADD(states[6], g);
        states[7] = ADD(states[7], h);
    }
}

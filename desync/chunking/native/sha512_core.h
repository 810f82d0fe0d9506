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
 *   BROADCAST(word)  the same word in each lane
 *   load_message(VECTOR message[16], const uint8_t *const *data)
 *                    words 0..15 of a block of each lane, in native byte order
 * The names are FIPS 180-4's. */

#define ROUND(a, b, c, d, e, f, g, h, i, constants)                                                                              \
    do {                                                                                                                         \
        VECTOR sum_e = XOR3(ROTATE_RIGHT(e, 14), ROTATE_RIGHT(e, 18), ROTATE_RIGHT(e, 41));                                      \
        VECTOR sum_a = XOR3(ROTATE_RIGHT(a, 28), ROTATE_RIGHT(a, 34), ROTATE_RIGHT(a, 39));                                      \
        VECTOR t = ADD(ADD(h, ADD(w[i], BROADCAST((constants)[i]))), ADD(CHOOSE(e, f, g), sum_e));                               \
        d = ADD(d, t);                                                                                                           \
        h = ADD(t, ADD(MAJORITY(a, b, c), sum_a));                                                                               \
    } while (0)

/* Eight rounds: the names move instead of the values, and are back in place after eight. */
#define EIGHT_ROUNDS(i, constants)                                                                                               \
    do {                                                                                                                         \
        ROUND(a, b, c, d, e, f, g, h, (i) + 0, constants);                                                                       \
        ROUND(h, a, b, c, d, e, f, g, (i) + 1, constants);                                                                       \
        ROUND(g, h, a, b, c, d, e, f, (i) + 2, constants);                                                                       \
        ROUND(f, g, h, a, b, c, d, e, (i) + 3, constants);                                                                       \
        ROUND(e, f, g, h, a, b, c, d, (i) + 4, constants);                                                                       \
        ROUND(d, e, f, g, h, a, b, c, (i) + 5, constants);                                                                       \
        ROUND(c, d, e, f, g, h, a, b, (i) + 6, constants);                                                                       \
        ROUND(b, c, d, e, f, g, h, a, (i) + 7, constants);                                                                       \
    } while (0)

/* Word i of the message schedule becomes word i + 16. */
#define EXTEND(i)                                                                                                                \
    do {                                                                                                                         \
        VECTOR early = w[((i) + 1) & 15], late = w[((i) + 14) & 15];                                                             \
        VECTOR sigma0 = XOR3(ROTATE_RIGHT(early, 1), ROTATE_RIGHT(early, 8), SHIFT_RIGHT(early, 7));                             \
        VECTOR sigma1 = XOR3(ROTATE_RIGHT(late, 19), ROTATE_RIGHT(late, 61), SHIFT_RIGHT(late, 6));                              \
        w[i] = ADD(ADD(w[i], w[((i) + 9) & 15]), ADD(sigma0, sigma1));                                                           \
    } while (0)

#define EXTEND_EIGHT(i)                                                                                                          \
    do {                                                                                                                         \
        EXTEND((i) + 0);                                                                                                         \
        EXTEND((i) + 1);                                                                                                         \
        EXTEND((i) + 2);                                                                                                         \
        EXTEND((i) + 3);                                                                                                         \
        EXTEND((i) + 4);                                                                                                         \
        EXTEND((i) + 5);                                                                                                         \
        EXTEND((i) + 6);                                                                                                         \
        EXTEND((i) + 7);                                                                                                         \
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
        EIGHT_ROUNDS(0, sha512_round_constants);
        EIGHT_ROUNDS(8, sha512_round_constants);
        for (int round = 16; round < 80; round += 16) {
            EXTEND_EIGHT(0);
            EIGHT_ROUNDS(0, sha512_round_constants + round);
            EXTEND_EIGHT(8);
            EIGHT_ROUNDS(8, sha512_round_constants + round);
        }
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

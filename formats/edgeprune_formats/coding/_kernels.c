/* What is slow in numpy of decoding chunks: the symbols of `quantized`, the bitmaps of `sparse-f16`.
 *
 * payload.py and codecs/sparse_f16.py have the same in numpy and are the reference; _encode.c is the other way. Loaded
 * through ctypes, so that it needs no Python headers and runs without the interpreter's lock.
 * Every array comes from the caller, whose sizes it trusts; the coded bytes it does not trust.
 *
 * Of `quantized`, a plane is decoded frequency after frequency, for all blocks whose band reaches it, side by side: the levels of
 * their contexts, then their symbols, then their values. Whenever fewer blocks go on, what later contexts need is
 * closed up, so that all of that runs over arrays without gaps. At the end every block gathers its values.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_format.h"

/* Not on Windows, where GCC does not align what it spills (its bug 54412). */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32) && !defined(EDGEPRUNE_SCALAR)
#define HAVE_AVX512 1
#include <immintrin.h>
#endif

enum { OK = 0, WORDS_SHORT = 1, NO_DISTRIBUTION = 2, BITS_SHORT = 3, WORDS_LEFT = 4, BITS_LEFT = 5, NO_MEMORY = 6, FEW_STATES = 7 };
/* Fewer states than MAX_LANES take no more symbols each than this; see payload.py. */
enum { MAX_LANES = 512, MAX_SYMBOLS_PER_LANE = 8192 };
enum { SLOTS = 1 << PRECISION };
/* The symbol of contexts without a distribution. */
enum { NONE = SYMBOLS };
/* Neighbors lie on the diagonal itself never, and on the 4 before. */
enum { HISTORY = 4 };
/* Vectors read and write up to this many entries past the end of a row. */
enum { PAD = 64 };

/* Rows of scratch memory are this long: at a power of two they would fall into the same few lines of a cache. */
static inline int64_t padded(int64_t blocks)
{
    return (blocks + PAD - 1) / PAD * PAD + PAD;
}

typedef struct {
    uint32_t *table;  /* [rows + 1][SLOTS]: frequency - 1 << 20 | slot - start << 8 | symbol; last row: NONE */
    uint32_t *states; /* [lanes] */
    int64_t lanes, lane;
    const uint16_t *word, *words_end;
    const uint8_t *bits;
    int64_t bit, bits_end;
    int64_t left; /* symbols that may still be taken */
} Stream;

static void fill_table(uint32_t *table, const uint16_t *frequencies, int64_t rows)
{
    for (int64_t row = 0; row <= rows; row++) {
        uint32_t *entry = table + row * SLOTS;
        for (uint32_t symbol = 0; symbol <= NONE; symbol++) {
            uint32_t frequency = symbol == NONE ? (row == rows) * SLOTS
                               : row == rows    ? 0
                                                : frequencies[row * SYMBOLS + symbol];
            for (uint32_t slot = 0; slot < frequency; slot++)
                *entry++ = (frequency - 1) << 20 | slot << 8 | symbol;
        }
    }
}

static inline uint32_t advanced(uint32_t state, uint32_t found)
{
    return ((found >> 20) + 1) * (state >> 12) + (found >> 8 & 4095);
}

/* Takes n symbols from the states from `lane` on. Nothing here branches on the
 * data: whether a state is low cannot be predicted, and a wrong guess costs more than all the rest. */
static void take_symbols(Stream *s, const uint32_t *offset, const uint8_t *levels, int64_t n, uint8_t *symbols)
{
    const uint32_t *const table = s->table;
    uint32_t *const states = s->states + s->lane;
    const uint16_t *word = s->word;
    for (int64_t i = 0; i < n; i++) {
        uint32_t state = states[i];
        const uint32_t found = table[offset[levels[i]] + (state & (SLOTS - 1))];
        state = advanced(state, found);
        const uint32_t filled = state << 16 | *word;
        word += state < LOW;
        states[i] = state < LOW ? filled : state;
        symbols[i] = (uint8_t)found;
    }
    s->word = word;
}

#ifdef HAVE_AVX512
__attribute__((target("avx512f,avx512bw"))) static void take_symbols_avx512(Stream *s, const uint32_t *offset,
                                                                             const uint8_t *levels, int64_t n,
                                                                             uint8_t *symbols)
{
    const __m512i first = _mm512_loadu_si512(offset), second = _mm512_loadu_si512(offset + 16);
    const __m512i slots = _mm512_set1_epi32(SLOTS - 1), one = _mm512_set1_epi32(1);
    uint32_t *const states = s->states + s->lane;
    const uint16_t *word = s->word;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 used = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        const __m512i level = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(levels + i)));
        const __m512i row = _mm512_permutex2var_epi32(first, level, second);
        __m512i state = _mm512_maskz_loadu_epi32(used, states + i);
        const __m512i at = _mm512_add_epi32(row, _mm512_and_si512(state, slots));
        const __m512i found = _mm512_i32gather_epi32(at, s->table, 4);
        state = _mm512_mullo_epi32(_mm512_add_epi32(_mm512_srli_epi32(found, 20), one), _mm512_srli_epi32(state, 12));
        state = _mm512_add_epi32(state, _mm512_and_si512(_mm512_srli_epi32(found, 8), slots));
        const __mmask16 low = _mm512_mask_cmplt_epu32_mask(used, state, _mm512_set1_epi32(LOW));
        const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)word));
        state = _mm512_mask_or_epi32(state, low, _mm512_slli_epi32(state, 16), _mm512_maskz_expand_epi32(low, words));
        _mm512_mask_storeu_epi32(states + i, used, state);
        _mm_storeu_si128((__m128i *)(symbols + i), _mm512_cvtepi32_epi8(found));
        word += __builtin_popcount(low);
    }
    s->word = word;
}
#endif

/* Symbols of n contexts, one of `offset` each by its level, dealt to the states in turn. A state takes one word at
 * most, so that a round takes no more than there are states: the caller has put as many, and a vector, behind the
 * words. */
static int decode_run(Stream *s, const uint32_t *offset, const uint8_t *levels, int64_t n, uint8_t *symbols)
{
    s->left -= n;
    if (s->left < 0)
        return FEW_STATES;
    for (int64_t i = 0, piece; i < n; i += piece) {
        piece = n - i < s->lanes - s->lane ? n - i : s->lanes - s->lane;
#ifdef HAVE_AVX512
        if (piece >= 8 && __builtin_cpu_supports("avx512bw"))
            take_symbols_avx512(s, offset, levels + i, piece, symbols + i);
        else
#endif
            take_symbols(s, offset, levels + i, piece, symbols + i);
        if (s->word > s->words_end)
            return WORDS_SHORT;
        s->lane = s->lane + piece == s->lanes ? 0 : s->lane + piece;
    }
    return OK;
}

/* Levels of contexts, round(2 log2(sum + 2)) of the weighted sum of the neighbors' magnitudes; tiles.py has
 * neighbors in this order and with these weights. Whole vectors, so up to PAD more. */
CLONES static void context_levels(const uint8_t *const near[NEIGHBORS], int64_t n, uint8_t *restrict levels)
{
    for (int64_t start = 0; start < n; start += PAD) {
        uint8_t even[PAD], rest[PAD];
        for (int i = 0; i < PAD; i++) {
            const int64_t at = start + i;
            const uint8_t four = (uint8_t)(near[0][at] + near[1][at] + near[2][at]);
            const uint8_t three = (uint8_t)(near[3][at] + near[4][at]);
            const uint8_t two = (uint8_t)(near[5][at] + near[6][at] + near[7][at] + near[8][at] + near[9][at]);
            const uint8_t single = (uint8_t)(near[10][at] + near[11][at]);
            even[i] = (uint8_t)(four + four + two);
            rest[i] = (uint8_t)(three + three + three + single);
        }
        for (int i = 0; i < PAD; i++) {
            /* Half the logarithm of 2 x^4; no x^4 here is so near a power of 2 that rounding reaches it. */
            const float x = (float)(2 * even[i] + rest[i] + 2), square = x * x, fourth = square * square;
            int32_t exponent;
            memcpy(&exponent, &fourth, sizeof exponent);
            levels[start + i] = (uint8_t)(((exponent >> 23) - 126) >> 1);
        }
    }
}

/* Values and saturated magnitudes of symbols as if none had plain bits; `special` where one has, or is an escape or
 * NONE. */
CLONES static void plain_values(const uint8_t *restrict symbols, const uint8_t *restrict levels, int64_t n, int least,
                                int16_t *restrict values, uint8_t *restrict magnitudes, uint8_t *restrict special)
{
    const uint8_t threshold = (uint8_t)(least < 0 ? 0 : least > LEVELS ? LEVELS : least);
    for (int64_t i = 0; i < n; i++) {
        const int8_t value = (int8_t)(symbols[i] - 7);
        values[i] = value;
        magnitudes[i] = (uint8_t)(value < 0 ? -value : value);
        special[i] = (symbols[i] >= ESCAPE) | (levels[i] >= threshold);
    }
}

/* Where `special` is 1; it is 0 after the last entry, for 8 more. */
static int64_t find_special(const uint8_t *special, int64_t n, int32_t *found)
{
    int64_t count = 0;
    for (int64_t start = 0; start < n; start += 8) {
        uint64_t eight;
        memcpy(&eight, special + start, sizeof eight);
        if (eight == 0)
            continue;
        for (int i = 0; i < 8; i++) {
            found[count] = (int32_t)(start + i);
            count += special[start + i];
        }
    }
    return count;
}

static inline uint32_t next_bits(Stream *s, int count)
{
    uint64_t window = 0;
    const int64_t byte = s->bit >> 3, left = (s->bits_end >> 3) - byte;
    if (left >= 4) {
        uint32_t four;
        memcpy(&four, s->bits + byte, sizeof four);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        four = __builtin_bswap32(four);
#endif
        window = four;
    } else
        for (int64_t i = 0; i < left; i++)
            window |= (uint64_t)s->bits[byte + i] << 8 * i;
    window >>= s->bit & 7;
    s->bit += count;
    return (uint32_t)window & ((1u << count) - 1);
}

static int special_values(Stream *s, const uint8_t *symbols, const uint8_t *levels, const uint8_t *shift_of_level,
                          const int32_t *found, int64_t count, int16_t *values, uint8_t *magnitudes)
{
    for (int64_t k = 0; k < count; k++) {
        const int32_t i = found[k];
        const int symbol = symbols[i], shift = shift_of_level[levels[i]];
        if (symbol == NONE)
            return NO_DISTRIBUTION;
        const int32_t bits = (int32_t)next_bits(s, symbol == ESCAPE ? 16 : shift);
        if (s->bit > s->bits_end)
            return BITS_SHORT;
        /* Only a stream that no encoder wrote goes beyond 16 bits; it wraps here as it does in numpy. */
        const int16_t value = (int16_t)(symbol == ESCAPE ? bits : (symbol - 7) * (1 << shift) + bits);
        const int32_t size = value < 0 ? -(int32_t)value : value;
        values[i] = value;
        magnitudes[i] = (uint8_t)(size < SATURATION ? size : SATURATION);
    }
    return OK;
}

typedef struct {
    int64_t first, places;  /* in coding order, of a band */
    int64_t active;         /* blocks that have it */
    const int32_t *members; /* [active] */
    int16_t *values;        /* [places][padded(active)] */
} Segment;

typedef struct {
    const int32_t *raster, *starts, *neighbors, *band_of_diagonal;
    int64_t diagonals, places;
} Scan;

typedef struct {
    int64_t stride, longest; /* entries of a row, rows of a diagonal */
    uint8_t *magnitudes;     /* [HISTORY + 1][longest][stride] */
    uint8_t *zeros, *levels, *symbols, *special;
    int32_t *found, *members; /* members: [BANDS][blocks] */
    uint64_t *mask;           /* a bit for each entry of a row */
    int16_t *values;
} Scratch;

static uint8_t *magnitude_row(const Scratch *scratch, int64_t diagonal, int64_t number)
{
    return scratch->magnitudes + (diagonal % (HISTORY + 1) * scratch->longest + number) * scratch->stride;
}

#ifdef HAVE_AVX512
__attribute__((target("avx512f,avx512bw,avx512vbmi2"))) static void close_row_avx512(uint8_t *row,
                                                                                     const uint64_t *mask, int64_t n)
{
    uint8_t *to = row;
    for (int64_t i = 0; i < n; i += 64) {
        const __m512i from = _mm512_loadu_si512(row + i);
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi8(mask[i / 64], from));
        to += __builtin_popcountll(mask[i / 64]);
    }
}
#endif

/* Keeps of the rows of the diagonals before `diagonal`, of `active` entries each, the `going` ones that are listed in
 * `found` and marked in `mask`. */
static void close_up(const Scratch *scratch, const Scan *scan, int64_t diagonal, int64_t active, int64_t going)
{
    for (int64_t d = diagonal - 1; d >= 0 && d >= diagonal - HISTORY; d--)
        for (int64_t number = 0; number < scan->starts[d + 1] - scan->starts[d]; number++) {
            uint8_t *row = magnitude_row(scratch, d, number);
#ifdef HAVE_AVX512
            if (__builtin_cpu_supports("avx512vbmi2")) {
                close_row_avx512(row, scratch->mask, active);
                continue;
            }
#endif
            for (int64_t i = 0; i < going; i++)
                row[i] = row[scratch->found[i]];
        }
    (void)active; /* without vectors */
}

static int decode_place(Stream *s, const Scratch *scratch, const Scan *scan, const int16_t *row_of, int64_t none,
                        int base, int64_t diagonal, int64_t place, int64_t active, int16_t *values)
{
    uint32_t offset[LEVELS];
    uint8_t shift_of_level[LEVELS];
    const uint8_t *near[NEIGHBORS];
    uint8_t *magnitudes = magnitude_row(scratch, diagonal, place - scan->starts[diagonal]);
    if (base == 0) {
        memset(magnitudes, 0, (size_t)scratch->stride);
        memset(values, 0, (size_t)active * sizeof *values);
        return OK;
    }
    for (int k = 0; k < NEIGHBORS; k++) {
        const int64_t other = scan->neighbors[place * NEIGHBORS + k];
        int64_t d = diagonal;
        if (other >= scan->places) {
            near[k] = scratch->zeros;
            continue;
        }
        while (other < scan->starts[d])
            d--;
        near[k] = magnitude_row(scratch, d, other - scan->starts[d]);
    }
    for (int level = 0; level < LEVELS; level++) {
        int class = level + base - BASE_OFFSET;
        class = class < 0 ? 0 : class > CLASSES - 1 ? CLASSES - 1 : class;
        offset[level] = (uint32_t)((row_of[class] < 0 ? none : row_of[class]) * SLOTS);
        shift_of_level[level] = (uint8_t)(class < CENTER + 2 ? 0 : (class - CENTER) / 2);
    }
    context_levels(near, active, scratch->levels);
    const int failure = decode_run(s, offset, scratch->levels, active, scratch->symbols);
    if (failure)
        return failure;
    plain_values(scratch->symbols, scratch->levels, active, CENTER + 2 - base + BASE_OFFSET, values, magnitudes,
                 scratch->special);
    memset(scratch->special + active, 0, 8);
    return special_values(s, scratch->symbols, scratch->levels, shift_of_level, scratch->found,
                          find_special(scratch->special, active, scratch->found), values, magnitudes);
}

/* One plane of all blocks; returns through `segments` where its values are. */
static int decode_plane(Stream *s, const Scratch *scratch, const Scan *scan, const int16_t *row_of, int64_t none,
                        const uint8_t *bases, const uint8_t *bands, int64_t blocks, Segment *segments, int *count)
{
    int16_t *values = scratch->values;
    int64_t active = blocks;
    int32_t *members = NULL;
    for (int64_t d = 0; d < scan->diagonals; d++) {
        const int band = scan->band_of_diagonal[d];
        if (d == 0 || band != scan->band_of_diagonal[d - 1]) {
            int32_t *kept = scratch->found, *now = scratch->members + *count * blocks;
            int64_t going = 0;
            memset(scratch->mask, 0, (size_t)(active / 64 + 1) * sizeof *scratch->mask);
            for (int64_t i = 0; i < active; i++) {
                const int32_t block = members ? members[i] : (int32_t)i;
                const int keep = bands[block] >= band;
                kept[going] = (int32_t)i;
                now[going] = block;
                going += keep;
                scratch->mask[i / 64] |= (uint64_t)keep << i % 64;
            }
            if (going == 0)
                break;
            if (going < active)
                close_up(scratch, scan, d, active, going);
            active = going;
            members = now;
            segments[(*count)++] = (Segment){scan->starts[d], 0, active, members, values};
        }
        s->lane = 0;
        for (int64_t place = scan->starts[d]; place < scan->starts[d + 1]; place++) {
            const int failure =
                decode_place(s, scratch, scan, row_of, none, bases[place], d, place, active, values);
            if (failure)
                return failure;
            values += padded(active);
            segments[*count - 1].places++;
        }
    }
    return OK;
}

static void scatter(const int16_t *restrict from, int64_t stride, const int32_t *restrict at, int64_t count,
                    int16_t *restrict to)
{
    int64_t f = 0;
    for (; f + 4 <= count; f += 4) {
        const int16_t a = from[f * stride], b = from[(f + 1) * stride];
        const int16_t c = from[(f + 2) * stride], d = from[(f + 3) * stride];
        to[at[f]] = a;
        to[at[f + 1]] = b;
        to[at[f + 2]] = c;
        to[at[f + 3]] = d;
    }
    for (; f < count; f++)
        to[at[f]] = from[f * stride];
}

/* Segments to out [image][plane][tile][raster], as many blocks at once as fit the first-level cache. */
static void to_images(const Segment *segments, int count, const int32_t *raster, int64_t places, int64_t blocks,
                      int64_t tiles, int64_t planes, int64_t plane, int16_t *out)
{
    enum { CACHED = 16384 };
    const int64_t group = places < CACHED / 16 ? CACHED / places : 16;
    int64_t next[BANDS] = {0};
    for (int64_t b0 = 0; b0 < blocks; b0 += group) {
        const int64_t b1 = b0 + group < blocks ? b0 + group : blocks;
        for (int64_t block = b0; block < b1; block++)
            memset(out + ((block / tiles * planes + plane) * tiles + block % tiles) * places, 0,
                   (size_t)places * sizeof *out);
        for (int k = 0; k < count; k++) {
            const Segment *segment = segments + k;
            const int64_t stride = padded(segment->active), first = next[k];
            int64_t last = first;
            while (last < segment->active && segment->members[last] < b1)
                last++;
            next[k] = last;
            for (int64_t i = first; i < last; i++) {
                const int64_t block = segment->members[i];
                scatter(segment->values + i, stride, raster + segment->first, segment->places,
                        out + ((block / tiles * planes + plane) * tiles + block % tiles) * places);
            }
        }
    }
}

static int decode_all(Stream *s, Scratch *scratch, const Scan *scan, const int16_t *row_of, int64_t none,
                      const uint8_t *bases, int64_t images, int64_t planes, int64_t tiles, uint8_t *bands,
                      int16_t *out)
{
    const int64_t blocks = images * tiles;
    memset(scratch->levels, 0, (size_t)scratch->stride);
    for (int64_t c = 0; c < planes; c++) {
        uint32_t offset[LEVELS];
        Segment segments[BANDS];
        int count = 0;
        for (int before = 0; before < LEVELS; before++) {
            const int row = before < BANDS ? row_of[CLASSES + c * BANDS + before] : -1;
            offset[before] = (uint32_t)((row < 0 ? none : row) * SLOTS);
        }
        if (c)
            memcpy(scratch->levels, bands + (c - 1) * blocks, (size_t)blocks);
        s->lane = 0;
        int failure = decode_run(s, offset, scratch->levels, blocks, scratch->symbols);
        if (failure)
            return failure;
        memcpy(bands + c * blocks, scratch->symbols, (size_t)blocks);
        for (int64_t b = 0; b < blocks; b++)
            if (scratch->symbols[b] == NONE)
                return NO_DISTRIBUTION;
        failure = decode_plane(s, scratch, scan, row_of, none, bases + c * scan->places, bands + c * blocks, blocks,
                               segments, &count);
        if (failure)
            return failure;
        to_images(segments, count, scan->raster, scan->places, blocks, tiles, planes, c, out);
    }
    if (s->word != s->words_end)
        return WORDS_LEFT;
    for (int64_t j = 0; j < s->lanes; j++)
        if (s->states[j] != LOW)
            return WORDS_LEFT;
    if (s->bits_end - s->bit >= 8)
        return BITS_LEFT;
    for (; s->bit < s->bits_end; s->bit++)
        if (s->bits[s->bit >> 3] >> (s->bit & 7) & 1)
            return BITS_LEFT;
    return OK;
}

static void *carve(char **from, int64_t bytes)
{
    void *found = *from;
    *from += (bytes + 63) / 64 * 64;
    return found;
}

/* Of the functions below: whoever calls them looks whether it is the one that they were written for. */
EXPORT int ep_interface(void)
{
    return 4;
}

/* Returns 0, or why the bytes are none that an encoder wrote. Behind the words are 512 + 16 more. */
EXPORT int ep_decode_quantized(
    const uint16_t *frequencies, int64_t rows, const int16_t *row_of, uint32_t *states, int64_t lanes,
    const uint16_t *words, int64_t word_count, const uint8_t *bits, int64_t bit_bytes, const uint8_t *bases,
    const int32_t *raster, const int32_t *starts, const int32_t *neighbors, const int32_t *band_of_diagonal, int64_t diagonals, int64_t places, int64_t images, int64_t planes,
    int64_t tiles, uint8_t *bands, int16_t *out)
{
    const Scan scan = {raster, starts, neighbors, band_of_diagonal, diagonals, places};
    const int64_t blocks = images * tiles;
    Scratch scratch = {.stride = padded(blocks)};
    for (int64_t d = 0; d < diagonals; d++)
        if (starts[d + 1] - starts[d] > scratch.longest)
            scratch.longest = starts[d + 1] - starts[d];
    const int64_t stride = scratch.stride, history = (HISTORY + 1) * scratch.longest * stride;
    const int64_t sizes = (rows + 1) * SLOTS * 4 + history + 4 * stride + stride * 4 + BANDS * blocks * 4 +
                          places * stride * 2 + stride / 8 + 10 * 64;
    char *memory = malloc((size_t)sizes), *next = memory;
    if (memory == NULL)
        return NO_MEMORY;
    uint32_t *table = carve(&next, (rows + 1) * SLOTS * 4);
    scratch.magnitudes = carve(&next, history);
    scratch.levels = carve(&next, stride);
    scratch.symbols = carve(&next, stride);
    scratch.special = carve(&next, stride);
    scratch.zeros = memset(carve(&next, stride), 0, (size_t)stride);
    scratch.found = carve(&next, stride * 4);
    scratch.mask = carve(&next, stride / 8);
    scratch.members = carve(&next, BANDS * blocks * 4);
    scratch.values = carve(&next, places * stride * 2);
    fill_table(table, frequencies, rows);
    const int64_t left = lanes < MAX_LANES ? lanes * MAX_SYMBOLS_PER_LANE : INT64_MAX;
    Stream s = {table, states, lanes, 0, words, words + word_count, bits, 0, 8 * bit_bytes, left};
    const int status = decode_all(&s, &scratch, &scan, row_of, rows, bases, images, planes, tiles, bands, out);
    free(memory);
    return status;
}

static inline int leading_zeros(uint64_t word)
{
#ifdef __GNUC__
    return __builtin_clzll(word);
#else
    int zeros = 0;
    for (; !(word >> 63); word <<= 1)
        zeros++;
    return zeros;
#endif
}

/* Positions [samples][planes][components], uint16 or uint32 (`wide`), of bitmaps [planes][places][bytes], first
 * image in the highest bit. `packed` has the position of each place, `counts` room for a number for each image.
 * Returns 0, or 1 if a plane of an image has not so many, or an image that there is not has any. */
EXPORT int ep_positions(const uint8_t *bitmaps, int64_t bytes, const uint32_t *packed, int64_t samples,
                        int64_t planes, int64_t places, int64_t components, int64_t wide, int32_t *counts,
                        void *positions)
{
    for (int64_t c = 0; c < planes; c++) {
        memset(counts, 0, (size_t)samples * sizeof *counts);
        for (int64_t p = 0; p < places; p++, bitmaps += bytes)
            for (int64_t byte = 0; byte < bytes; byte += 8) {
                uint64_t word = 0;
                for (int64_t k = 0; k < 8; k++)
                    word = word << 8 | (byte + k < bytes ? bitmaps[byte + k] : 0);
                while (word) {
                    const int first = leading_zeros(word);
                    const int64_t i = byte * 8 + first;
                    word &= ~(1ull << (63 - first));
                    if (i >= samples || counts[i] == components)
                        return 1;
                    const int64_t at = (i * planes + c) * components + counts[i]++;
                    if (wide)
                        ((uint32_t *)positions)[at] = packed[p];
                    else
                        ((uint16_t *)positions)[at] = (uint16_t)packed[p];
                }
            }
        for (int64_t i = 0; i < samples; i++)
            if (counts[i] != components)
                return 1;
    }
    return 0;
}

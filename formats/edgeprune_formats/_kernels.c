/* The decoder of `quantized` chunks in C; _coefficients.py has the same in numpy and is the reference.
 *
 * Loaded through ctypes, so that it needs no Python headers and runs without the interpreter's lock.
 * Every array comes from the caller, whose sizes it trusts; the coded bytes it does not trust.
 */
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum { CLASSES = 48, CENTRE = 20, BANDS = 16, BASE_OFFSET = 64, SATURATION = 15, ESCAPE = 15, NEIGHBOURS = 12 };
enum { OK = 0, WORDS_SHORT = 1, NO_DISTRIBUTION = 2, BITS_SHORT = 3, WORDS_LEFT = 4, BITS_LEFT = 5 };
#define LOW 65536u
/* round(2 log2(450 + 2)) */
#define MAX_LEVEL 18

/* Rows of scratch memory are this long: at a power of two they would fall into the same few lines of a cache. */
static inline int64_t padded(int64_t blocks)
{
    return (blocks + 63) / 64 * 64 + 32;
}

typedef struct {
    const uint32_t *table; /* [rows][4096] */
    const int16_t *row_of; /* [CLASSES + C * BANDS] */
    uint32_t *states;      /* [lanes] */
    int64_t lanes;
    const uint16_t *word, *words_end;
    const uint8_t *bits;
    int64_t bit, bits_end;
} Stream;

static inline int next_symbol(Stream *s, int64_t lane, int row)
{
    uint32_t state = s->states[lane];
    uint32_t found = s->table[((size_t)row << 12) | (state & 4095u)];
    state = (((found >> 12) & 4095u) + 1u) * (state >> 12) + (found & 4095u);
    if (state < LOW) {
        if (s->word == s->words_end)
            return -1;
        state = state << 16 | *s->word++;
    }
    s->states[lane] = state;
    return (int)(found >> 24);
}

static inline int32_t plain_bits(Stream *s, int count)
{
    int32_t value = 0;
    if (s->bit + count > s->bits_end) {
        s->bit = s->bits_end + 1;
        return 0;
    }
    for (int i = 0; i < count; i++, s->bit++)
        value |= (int32_t)((s->bits[s->bit >> 3] >> (s->bit & 7)) & 1) << i;
    return value;
}

/* sums[b] of the neighbours' saturated magnitudes, for all blocks */
CLONES static void context_sums(const uint8_t *magnitudes, const int32_t *near, const int32_t *weights,
                                int64_t places, int64_t blocks, int64_t stride, uint16_t *restrict sums)
{
    memset(sums, 0, (size_t)blocks * sizeof *sums);
    for (int k = 0; k < NEIGHBOURS; k++) {
        if (near[k] >= places)
            continue;
        const uint8_t *restrict row = magnitudes + (int64_t)near[k] * stride;
        const uint16_t weight = (uint16_t)weights[k];
        for (int64_t b = 0; b < blocks; b++)
            sums[b] = (uint16_t)(sums[b] + weight * row[b]);
    }
}

static inline unsigned context_sum(const uint8_t *magnitudes, const int32_t *near, const int32_t *weights,
                                   int64_t places, int64_t stride, int64_t b)
{
    unsigned sum = 0;
    for (int k = 0; k < NEIGHBOURS; k++)
        if (near[k] < places)
            sum += (unsigned)weights[k] * magnitudes[(int64_t)near[k] * stride + b];
    return sum;
}

/* One frequency of the blocks inside. The first loop has no branch that depends on the data: whether a symbol
 * is zero or a state is low cannot be predicted, and a wrong guess costs more than all the rest. */
static int decode_place(Stream *s, const int16_t *row_of_level, const uint8_t *class_of_level,
                        const uint8_t *levels, const uint16_t *sums, const int32_t *inside, int64_t active,
                        int64_t *lane, int16_t *values, uint8_t *magnitudes, uint32_t *pending)
{
    const uint32_t *const table = s->table;
    uint32_t *const restrict states = s->states;
    const uint16_t *word = s->word;
    const int64_t lanes = s->lanes;
    int64_t j = *lane, waiting = 0;
    int missing = 0;
    for (int64_t i = 0; i < active;) {
        /* A state takes one word at most, so a piece no longer than the words left needs no look at their end. */
        int64_t piece = active - i < lanes - j ? active - i : lanes - j;
        int64_t left = s->words_end - word;
        if (left < piece)
            piece = left > 0 ? 1 : 0;
        if (piece == 0) {
            uint32_t state = states[j];
            int row = row_of_level[levels[sums[inside[i]]]];
            uint32_t found = table[((size_t)(row < 0 ? 0 : row) << 12) | (state & 4095u)];
            if ((((found >> 12) & 4095u) + 1u) * (state >> 12) + (found & 4095u) < LOW)
                return WORDS_SHORT;
            piece = 1;
        }
        for (int64_t stop = i + piece; i < stop; i++, j++) {
            const int32_t b = inside[i];
            const unsigned level = levels[sums[b]];
            const int row = row_of_level[level];
            uint32_t state = states[j];
            missing |= row;
            const uint32_t found = table[((size_t)(row < 0 ? 0 : row) << 12) | (state & 4095u)];
            state = (((found >> 12) & 4095u) + 1u) * (state >> 12) + (found & 4095u);
            const uint32_t low = state < LOW;
            const uint32_t filled = state << 16 | (left > 0 ? *word : 0u);
            states[j] = low ? filled : state;
            word += low;
            const uint32_t symbol = found >> 24;
            pending[waiting] = (uint32_t)b | symbol << 28;
            waiting += (symbol != 7u) | (class_of_level[level] >= CENTRE + 2);
        }
        if (j == lanes)
            j = 0;
    }
    *lane = j;
    s->word = word;
    if (missing < 0)
        return NO_DISTRIBUTION;
    for (int64_t i = 0; i < waiting; i++) {
        const int32_t b = (int32_t)(pending[i] & 0xfffffffu);
        const int symbol = (int)(pending[i] >> 28);
        const int class = class_of_level[levels[sums[b]]];
        const int shift = class < CENTRE + 2 ? 0 : (class - CENTRE) / 2;
        int32_t value;
        if (symbol == ESCAPE)
            value = (int16_t)plain_bits(s, 16);
        else
            value = (symbol - 7) * (1 << shift) + (shift ? plain_bits(s, shift) : 0);
        /* Only a stream that no encoder wrote goes beyond 16 bits; it wraps here as it does in numpy. */
        value = (int16_t)value;
        const int32_t size = value < 0 ? -value : value;
        values[b] = (int16_t)value;
        magnitudes[b] = (uint8_t)(size < SATURATION ? size : SATURATION);
    }
    return s->bit > s->bits_end ? BITS_SHORT : OK;
}

static int decode_plane(Stream *s, const uint8_t *bases, const int32_t *starts, const int32_t *neighbours,
                        const int32_t *weights, const int32_t *band_of_diagonal, const uint8_t *levels,
                        int64_t diagonals, int64_t places, int64_t blocks, const uint8_t *bands,
                        int16_t *values, uint8_t *magnitudes, uint16_t *sums, int32_t *inside,
                        uint32_t *pending)
{
    int16_t row_of_level[MAX_LEVEL + 1];
    uint8_t class_of_level[MAX_LEVEL + 1];
    const int64_t stride = padded(blocks);
    memset(values, 0, (size_t)(places * stride) * sizeof *values);
    memset(magnitudes, 0, (size_t)(places * stride));
    for (int64_t d = 0; d < diagonals; d++) {
        int64_t active = 0, lane = 0;
        for (int64_t b = 0; b < blocks; b++) {
            inside[active] = (int32_t)b;
            active += bands[b] >= band_of_diagonal[d];
        }
        if (active == 0)
            break;
        for (int64_t f = starts[d]; f < starts[d + 1]; f++) {
            const int32_t *near = neighbours + f * NEIGHBOURS;
            if (bases[f] == 0)
                continue;
            if (active * 8 > blocks)
                context_sums(magnitudes, near, weights, places, blocks, stride, sums);
            else
                for (int64_t i = 0; i < active; i++)
                    sums[inside[i]] =
                        (uint16_t)context_sum(magnitudes, near, weights, places, stride, inside[i]);
            for (int level = 0; level <= MAX_LEVEL; level++) {
                int class = level + bases[f] - BASE_OFFSET;
                class = class < 0 ? 0 : class > CLASSES - 1 ? CLASSES - 1 : class;
                class_of_level[level] = (uint8_t)class;
                row_of_level[level] = s->row_of[class];
            }
            int failure = decode_place(s, row_of_level, class_of_level, levels, sums, inside, active, &lane,
                                       values + f * stride, magnitudes + f * stride, pending);
            if (failure)
                return failure;
        }
    }
    return OK;
}

/* values [places][blocks] in coding order to out [image][plane][tile][raster], in squares that fit the cache */
static void to_images(const int16_t *values, const int32_t *raster, int64_t places, int64_t blocks,
                      int64_t tiles, int64_t planes, int64_t plane, int16_t *out)
{
    enum { SIDE = 32 };
    const int64_t stride = padded(blocks);
    for (int64_t b0 = 0; b0 < blocks; b0 += SIDE) {
        int64_t b1 = b0 + SIDE < blocks ? b0 + SIDE : blocks;
        for (int64_t f0 = 0; f0 < places; f0 += SIDE) {
            int64_t f1 = f0 + SIDE < places ? f0 + SIDE : places;
            for (int64_t b = b0; b < b1; b++) {
                int64_t image = b / tiles, tile = b % tiles;
                int16_t *to = out + ((image * planes + plane) * tiles + tile) * places;
                for (int64_t f = f0; f < f1; f++)
                    to[raster[f]] = values[f * stride + b];
            }
        }
    }
}

/* Returns 0, or why the bytes are none that an encoder wrote. */
EXPORT int ep_decode_quantized(
    const uint32_t *table, const int16_t *row_of, uint32_t *states, int64_t lanes, const uint16_t *words,
    int64_t word_count, const uint8_t *bits, int64_t bit_bytes, const uint8_t *bases, const int32_t *raster,
    const int32_t *starts, const int32_t *neighbours, const int32_t *weights, const int32_t *band_of_diagonal,
    const uint8_t *levels, int64_t diagonals, int64_t places, int64_t images, int64_t planes, int64_t tiles,
    int16_t *values, uint8_t *magnitudes, uint16_t *sums, int32_t *inside,
    uint32_t *pending, uint8_t *bands, int16_t *out)
{
    const int64_t blocks = images * tiles;
    Stream s = {table, row_of, states, lanes, words, words + word_count, bits, 0, 8 * bit_bytes};
    for (int64_t c = 0; c < planes; c++) {
        uint8_t *band = bands + c * blocks;
        int64_t lane = 0;
        for (int64_t b = 0; b < blocks; b++) {
            int before = c ? band[b - blocks] : 0;
            int row = row_of[CLASSES + c * BANDS + before];
            if (row < 0)
                return NO_DISTRIBUTION;
            int symbol = next_symbol(&s, lane, row);
            if (symbol < 0)
                return WORDS_SHORT;
            band[b] = (uint8_t)symbol;
            if (++lane == lanes)
                lane = 0;
        }
        int failure = decode_plane(&s, bases + c * places, starts, neighbours, weights, band_of_diagonal,
                                   levels, diagonals, places, blocks, band, values, magnitudes, sums, inside,
                                   pending);
        if (failure)
            return failure;
        to_images(values, raster, places, blocks, tiles, planes, c, out);
    }
    if (s.word != s.words_end)
        return WORDS_LEFT;
    for (int64_t j = 0; j < lanes; j++)
        if (states[j] != LOW)
            return WORDS_LEFT;
    if (s.bits_end - s.bit >= 8)
        return BITS_LEFT;
    for (; s.bit < s.bits_end; s.bit++)
        if (s.bits[s.bit >> 3] >> (s.bit & 7) & 1)
            return BITS_LEFT;
    return OK;
}

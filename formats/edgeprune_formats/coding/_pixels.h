/* Reading pixels of type PIXEL; included by _encode.c for each of them. */

/* The pixels of one tile, of so many channels, into column `lane` of [channels][tile pixels][LANES]. */
static void NAME(gather_tile)(const PIXEL *image, const Layout *layout, int64_t tile, int64_t lane, int64_t channels,
                              PIXEL *to)
{
    const int64_t top = tile / layout->across * layout->tile_height;
    const int64_t left = tile % layout->across * layout->tile_width;
    const int64_t inside =
        layout->width - left < layout->tile_width ? layout->width - left : layout->tile_width;
    to += lane;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t y = 0; y < layout->tile_height; y++) {
            const int64_t row = top + y < layout->height ? top + y : layout->height - 1;
            const PIXEL *from = image + (c * layout->height + row) * layout->width + left;
            for (int64_t x = 0; x < inside; x++, to += LANES)
                *to = from[x];
            for (int64_t x = inside; x < layout->tile_width; x++, to += LANES)
                *to = from[inside - 1];
        }
}

CLONES static void NAME(mix_colors)(const PIXEL *restrict pixels, int64_t places, const float *matrix, float shift,
                                    float *restrict plane)
{
    const PIXEL *const red = pixels, *const green = red + places * LANES, *const blue = green + places * LANES;
    for (int64_t i = 0; i < places * LANES; i++)
        plane[i] = matrix[0] * (float)red[i] + matrix[1] * (float)green[i] + matrix[2] * (float)blue[i] - shift;
}

CLONES static void NAME(scale_one)(const PIXEL *restrict pixels, int64_t places, float scale, float shift,
                                   float *restrict plane)
{
    for (int64_t i = 0; i < places * LANES; i++)
        plane[i] = scale * (float)pixels[i] - shift;
}

/* A plane of the pixels gathered: mixed of three channels by a row of the matrix, or one by itself. */
static void NAME(to_plane)(const PIXEL *pixels, int64_t places, int64_t mixed, const float *row, float scale,
                           float shift, float *plane)
{
    if (mixed == 3)
        NAME(mix_colors)(pixels, places, row, shift, plane);
    else
        NAME(scale_one)(pixels, places, scale, shift, plane);
}

import { InverseDct } from './dct.js';
import { tilingOf, type PackHeader, type Tiling } from './header.js';

/** Turns the coefficients of an image to its pixels. */
export class PixelDecoder {
  private readonly transform: InverseDct;
  private readonly tiling: Tiling;

  constructor(private readonly header: PackHeader) {
    this.tiling = tilingOf(header);
    this.transform = new InverseDct(this.tiling.height, this.tiling.width);
  }

  /** Write pixels on [0, 1], [channels, height, width], from coefficients [channels, tiles, frequencies]. */
  decode(coefficients: Float32Array, into: Float32Array) {
    const { channels, height, width, codec, colorSpace } = this.header;
    const plane = height * width;
    for (let channel = 0; channel < channels; channel++) {
      const centered = codec === 'quantized' && (colorSpace !== 'ycbcr' || channel === 0);
      this.decodePlane(coefficients, channel, into.subarray(channel * plane, (channel + 1) * plane), centered ? 0.5 : 0);
    }
    if (colorSpace === 'ycbcr') toRgb(into, plane);
    for (let n = 0; n < into.length; n++) {
      if (!(into[n]! > 0)) into[n] = 0;
      else if (into[n]! > 1) into[n] = 1;
    }
  }

  private decodePlane(coefficients: Float32Array, channel: number, into: Float32Array, offset: number) {
    const { tiling } = this;
    const { height, width } = this.header;
    const frequencies = tiling.height * tiling.width;
    const tiles = tiling.down * tiling.across;
    for (let tile = 0; tile < tiles; tile++) {
      const pixels = this.transform.transform(coefficients, (channel * tiles + tile) * frequencies);
      const top = Math.floor(tile / tiling.across) * tiling.height;
      const left = (tile % tiling.across) * tiling.width;
      const right = Math.min(width, left + tiling.width);
      for (let i = top; i < Math.min(height, top + tiling.height); i++) {
        for (let j = left, at = (i - top) * tiling.width; j < right; j++, at++) into[i * width + j] = pixels[at]! + offset;
      }
    }
  }
}

/** ITU-R BT.601 in full range, chroma centered on 0. */
function toRgb(pixels: Float32Array, plane: number) {
  for (let n = 0; n < plane; n++) {
    const y = pixels[n]!;
    const cb = pixels[plane + n]!;
    const cr = pixels[2 * plane + n]!;
    pixels[n] = y + 1.402 * cr;
    pixels[plane + n] = y - 0.344136 * cb - 0.714136 * cr;
    pixels[2 * plane + n] = y + 1.772 * cb;
  }
}

/**
 * Bytes red, green, blue and 255 of each pixel, for an `ImageData`, of pixels on [0, 1], [channels, height, width].
 * One channel is shown in gray; `show` names the channels of red, green and blue, the first three by default.
 */
export function toRGBA(pixels: Float32Array, header: PackHeader, show?: [number, number, number]): Uint8ClampedArray<ArrayBuffer> {
  const plane = header.height * header.width;
  const last = header.channels - 1;
  const channels = show ?? (header.channels < 3 ? [0, 0, 0] : [0, 1, 2]);
  if (channels.some((channel) => channel > last)) throw new RangeError(`a pack of ${header.channels} channels`);
  const bytes = new Uint8ClampedArray(4 * plane);
  for (let n = 0; n < plane; n++) {
    for (let k = 0; k < 3; k++) bytes[4 * n + k] = 255 * pixels[channels[k]! * plane + n]!;
    bytes[4 * n + 3] = 255;
  }
  return bytes;
}

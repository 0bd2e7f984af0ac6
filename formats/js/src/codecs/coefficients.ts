/** The decoded coefficients of a chunk of images. */
export interface ChunkCoefficients {
  /** Of one image of the chunk, [channels, tiles, frequencies of a tile row by row]. The next call overwrites them. */
  image(number: number): Float32Array;
  /** 1 for each of them that is kept. */
  kept(number: number): Uint8Array;
}

/** The decoder of the chunks of one pack. */
export interface ChunkDecoder {
  decode(chunk: number, samples: number): Promise<ChunkCoefficients>;
}

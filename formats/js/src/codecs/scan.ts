const BANDS = 16;
/** Neighbors of a frequency, down, across and their weight in its context. */
const NEIGHBORS = [
  [0, 1, 4], [1, 0, 4], [1, 1, 4], [0, 2, 3], [2, 0, 3], [1, 2, 2],
  [2, 1, 2], [0, 3, 2], [3, 0, 2], [2, 2, 2], [1, 3, 1], [3, 1, 1],
] as const;

/** The order in which the frequencies of a tile are coded. */
export interface Scan {
  /** Place of the n-th frequency in the tile, row by row. */
  raster: Uint32Array;
  /** Where each diagonal begins in this order, and the end. */
  diagonals: number[];
  /** The last diagonal of each band. */
  bandEnds: number[];
  /** For the n-th frequency, which others are its context, and with what weight. */
  neighbors: { from: number; weight: number }[][];
}

export function makeScan(height: number, width: number): Scan {
  const raster = new Uint32Array(height * width);
  const order = new Uint32Array(height * width);
  const diagonals: number[] = [];
  let n = 0;
  for (let d = 0; d <= height + width - 2; d++) {
    diagonals.push(n);
    for (let u = Math.max(0, d - width + 1); u <= Math.min(d, height - 1); u++) {
      raster[n] = u * width + (d - u);
      order[raster[n]!] = n++;
    }
  }
  const last = diagonals.length - 1;
  const bandEnds = Array.from({ length: BANDS }, (_, k) => (k === 0 ? 0 : Math.min(last, Math.max(k, Math.floor((last * k * k) / 225)))));
  const neighbors = Array.from(raster, (place) => {
    const [u, v] = [Math.floor(place / width), place % width];
    const inside = NEIGHBORS.filter(([a, b]) => u >= a && v >= b);
    return inside.map(([a, b, weight]) => ({ from: order[(u - a) * width + v - b]!, weight }));
  });
  return { raster, diagonals: [...diagonals, n], bandEnds, neighbors };
}

const LARGEST_TABLE = 1024;
const tables = new Map<number, Float64Array>();

/** The orthonormal DCT-II of n numbers as a matrix: row k holds frequency k. */
function basis(n: number): Float64Array {
  const known = tables.get(n);
  if (known) return known;
  const matrix = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    const scale = Math.sqrt((k === 0 ? 1 : 2) / n);
    for (let i = 0; i < n; i++) matrix[k * n + i] = scale * Math.cos((Math.PI * (2 * i + 1) * k) / (2 * n));
  }
  tables.set(n, matrix);
  return matrix;
}

/** Rows of the matrix one at a time, for sizes of which the matrix would take too much memory. */
class Rows {
  private readonly matrix: Float64Array | null;
  private readonly cosines: Float64Array;
  private readonly row: Float64Array;

  constructor(private readonly n: number) {
    this.matrix = n <= LARGEST_TABLE ? basis(n) : null;
    this.cosines = new Float64Array(this.matrix ? 0 : 4 * n).map((_, k) => Math.cos((Math.PI * k) / (2 * n)));
    this.row = new Float64Array(this.matrix ? 0 : n);
  }

  get(k: number): Float64Array {
    const { n, row } = this;
    if (this.matrix) return this.matrix.subarray(k * n, (k + 1) * n);
    const scale = Math.sqrt((k === 0 ? 1 : 2) / n);
    for (let i = 0, at = k; i < n; i++) {
      row[i] = scale * this.cosines[at]!;
      at = (at + 2 * k) % (4 * n);
    }
    return row;
  }
}

/**
 * The inverse orthonormal 2-D DCT-II of one spectrum at a time, of one size. Frequencies that are zero cost nothing.
 * A side of n pixels takes time in proportion to n for each coefficient that is not zero.
 */
export class InverseDct {
  private readonly down: Rows;
  private readonly across: Rows;
  private readonly half: Float64Array;
  private readonly used: Uint8Array;
  private readonly pixels: Float64Array;

  constructor(
    readonly height: number,
    readonly width: number,
  ) {
    this.down = new Rows(height);
    this.across = new Rows(width);
    this.half = new Float64Array(height * width);
    this.used = new Uint8Array(height);
    this.pixels = new Float64Array(height * width);
  }

  /** Pixels, row by row, of a spectrum that begins at `from`, row by row. The result is overwritten next time. */
  transform(spectrum: Float32Array, from: number): Float64Array {
    const { height, width, half, used, pixels } = this;
    half.fill(0);
    used.fill(0);
    for (let v = 0; v < width; v++) {
      let row: Float64Array | null = null;
      for (let u = 0; u < height; u++) {
        const value = spectrum[from + u * width + v]!;
        if (value === 0) continue;
        row ??= this.across.get(v);
        used[u] = 1;
        addScaled(half, u * width, row, value, width);
      }
    }
    pixels.fill(0);
    for (let u = 0; u < height; u++) {
      if (!used[u]) continue;
      const column = this.down.get(u);
      for (let i = 0; i < height; i++) {
        const factor = column[i]!;
        for (let j = 0, to = i * width, at = u * width; j < width; j++) pixels[to + j]! += factor * half[at + j]!;
      }
    }
    return pixels;
  }
}

function addScaled(target: Float64Array, to: number, row: Float64Array, factor: number, length: number) {
  for (let j = 0; j < length; j++) target[to + j]! += factor * row[j]!;
}

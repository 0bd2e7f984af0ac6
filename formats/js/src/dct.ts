const LARGEST_TABLE = 1024;
const tables = new Map<number, Float64Array>();

/** The orthonormal DCT-II of n numbers as a matrix: row k holds frequency k. */
function basis(n: number): Float64Array {
  const known = tables.get(n);
  if (known) return known;
  const matrix = new Float64Array(n * n);
  for (let k = 0; k < n; k++) fillRow(matrix, k * n, k, n, (at) => Math.cos((Math.PI * at) / (2 * n)));
  tables.set(n, matrix);
  return matrix;
}

function fillRow(into: Float64Array, to: number, k: number, n: number, cosine: (at: number) => number) {
  const scale = Math.sqrt((k === 0 ? 1 : 2) / n);
  for (let i = 0, at = k; i < n; i++, at = (at + 2 * k) % (4 * n)) into[to + i] = scale * cosine(at);
}

/** The rows of the matrix; one at a time for sizes of which the matrix would take too much memory. */
class Basis {
  readonly data: Float64Array;
  private readonly cosines: Float64Array | null = null;

  constructor(private readonly n: number) {
    if (n <= LARGEST_TABLE) {
      this.data = basis(n);
    } else {
      this.data = new Float64Array(n);
      this.cosines = Float64Array.from({ length: 4 * n }, (_, at) => Math.cos((Math.PI * at) / (2 * n)));
    }
  }

  /** Where in `data` row k begins, until the next call. */
  row(k: number): number {
    const { cosines, data, n } = this;
    if (!cosines) return k * n;
    fillRow(data, 0, k, n, (at) => cosines[at]!);
    return 0;
  }
}

/**
 * The inverse orthonormal 2-D DCT-II of one spectrum at a time, of one size. A frequency whose number is odd is
 * antisymmetric about the middle, an even one symmetric, so that half of each row and column is summed. Frequencies
 * that are zero cost nothing; the time of a side of n pixels is proportional to n for each other one.
 */
export class InverseDct {
  private readonly down: Basis;
  private readonly across: Basis;
  /** After the first step: rows of frequencies, columns of pixels; used are those that are not all zero. */
  private readonly rows: Float64Array;
  private readonly used: Uint8Array;
  private readonly pixels: Float64Array;

  constructor(
    readonly height: number,
    readonly width: number,
  ) {
    this.down = new Basis(height);
    this.across = new Basis(width);
    this.rows = new Float64Array(height * width);
    this.used = new Uint8Array(height);
    this.pixels = new Float64Array(height * width);
  }

  /** Pixels, row by row, of a spectrum that begins at `from`, row by row. The next call overwrites them. */
  transform(spectrum: Float32Array, from: number): Float64Array {
    this.transformRows(spectrum, from);
    this.transformColumns();
    return this.pixels;
  }

  private transformRows(spectrum: Float32Array, from: number) {
    const { height, width, rows, used, across } = this;
    const { data } = across;
    const half = (width + 1) >> 1;
    rows.fill(0);
    used.fill(0);
    for (let v = 0; v < width; v++) {
      let base = -1;
      // The even part of a row is summed in its first half, the odd part in its second one.
      const shift = v & 1 ? half : 0;
      const length = v & 1 ? width - half : half;
      for (let u = 0, at = from + v; u < height; u++, at += width) {
        const value = spectrum[at]!;
        if (value === 0) continue;
        if (base < 0) base = across.row(v);
        used[u] = 1;
        for (let j = 0, to = u * width + shift; j < length; j++) rows[to + j]! += value * data[base + j]!;
      }
    }
    for (let u = 0; u < height; u++) if (used[u]) this.unfoldRow(u * width, half);
  }

  /** Join the even and the odd part of a row, in place. */
  private unfoldRow(start: number, half: number) {
    const { rows, width } = this;
    const odd = width - half;
    for (let j = 0, k = odd - 1; j <= k; j++, k--) {
      // Columns j and k, and those that mirror them, hold each other's parts.
      const evenJ = rows[start + j]!;
      const evenK = rows[start + k]!;
      const oddJ = rows[start + half + j]!;
      const oddK = rows[start + half + k]!;
      rows[start + j] = evenJ + oddJ;
      rows[start + k] = evenK + oddK;
      rows[start + width - 1 - j] = evenJ - oddJ;
      rows[start + width - 1 - k] = evenK - oddK;
    }
  }

  private transformColumns() {
    const { height, width, rows, used, pixels, down } = this;
    const { data } = down;
    const half = (height + 1) >> 1;
    pixels.fill(0);
    for (let u = 0; u < height; u++) {
      if (!used[u]) continue;
      const base = down.row(u);
      const shift = u & 1 ? half : 0;
      const length = u & 1 ? height - half : half;
      for (let i = 0; i < length; i++) {
        const factor = data[base + i]!;
        for (let j = 0, to = (shift + i) * width, at = u * width; j < width; j++) pixels[to + j]! += factor * rows[at + j]!;
      }
    }
    for (let i = 0, k = height - half - 1; i <= k; i++, k--) this.unfoldRows(i, k, half);
  }

  /** Join the even and the odd parts of rows i and k, and of those that mirror them, in place. */
  private unfoldRows(i: number, k: number, half: number) {
    const { pixels, width, height } = this;
    const [a, b, c, d] = [i * width, k * width, (half + i) * width, (half + k) * width];
    const [e, f] = [(height - 1 - i) * width, (height - 1 - k) * width];
    for (let j = 0; j < width; j++) {
      const evenI = pixels[a + j]!;
      const evenK = pixels[b + j]!;
      const oddI = pixels[c + j]!;
      const oddK = pixels[d + j]!;
      pixels[a + j] = evenI + oddI;
      pixels[b + j] = evenK + oddK;
      pixels[e + j] = evenI - oddI;
      pixels[f + j] = evenK - oddK;
    }
  }
}

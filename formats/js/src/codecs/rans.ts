/** A chunk whose content its codec does not allow. */
export class StreamError extends Error {}

export const PROBABILITY_BITS = 12;
export const SLOTS = 1 << PROBABILITY_BITS;
const LEAST_STATE = 2 ** 16;

/** Distributions of 16 symbols, one for each context, as tables from a slot. */
export class Distributions {
  /** 0 where a context has none, else 1. */
  readonly present: Uint8Array;
  /** For each context and slot: the symbol. */
  readonly symbols: Uint8Array;
  /** For each context and symbol: its frequency, and where its slots begin. */
  readonly frequencies: Uint16Array;
  readonly starts: Uint16Array;

  constructor(contexts: number) {
    this.present = new Uint8Array(contexts);
    this.symbols = new Uint8Array(contexts * SLOTS);
    this.frequencies = new Uint16Array(contexts * 16);
    this.starts = new Uint16Array(contexts * 16);
  }

  set(context: number, frequencies: Uint16Array) {
    this.present[context] = 1;
    let start = 0;
    for (let symbol = 0; symbol < 16; symbol++) {
      const frequency = frequencies[symbol]!;
      if (start + frequency > SLOTS) break;
      this.frequencies[context * 16 + symbol] = frequency;
      this.starts[context * 16 + symbol] = start;
      this.symbols.fill(symbol, context * SLOTS + start, context * SLOTS + start + frequency);
      start += frequency;
    }
    if (start !== SLOTS || frequencies.reduce((sum, one) => sum + one, 0) !== SLOTS) throw new StreamError('frequencies do not add up to 4096');
  }
}

/** Takes symbols and plain bits from a chunk in the order in which they were coded. */
export class SymbolReader {
  private word = 0;
  private bit = 0;

  constructor(
    private readonly distributions: Distributions,
    private readonly states: Uint32Array,
    private readonly words: Uint16Array,
    private readonly plain: Uint8Array,
  ) {}

  /** The symbols of a run, given their contexts. */
  run(contexts: Uint16Array, count: number, into: Uint8Array) {
    const { states, words } = this;
    const { present, symbols, frequencies, starts } = this.distributions;
    const lanes = states.length;
    let word = this.word;
    for (let n = 0, lane = 0; n < count; n++) {
      const context = contexts[n]!;
      const x = states[lane]!;
      const slot = x & (SLOTS - 1);
      const symbol = symbols[(context << PROBABILITY_BITS) | slot]!;
      const entry = (context << 4) | symbol;
      if (!present[context]) throw new StreamError('a context has no distribution');
      let next = (frequencies[entry]! * (x >>> PROBABILITY_BITS) + slot - starts[entry]!) >>> 0;
      if (next < LEAST_STATE) {
        if (word === words.length) throw new StreamError('words are missing');
        next = ((next << 16) | words[word++]!) >>> 0;
      }
      states[lane] = next;
      into[n] = symbol;
      if (++lane === lanes) lane = 0;
    }
    this.word = word;
  }

  /** The next `count` plain bits, at most 16, the first one lowest. */
  bits(count: number): number {
    const { plain, bit } = this;
    if (bit + count > 8 * plain.length) throw new StreamError('plain bits are missing');
    const at = bit >>> 3;
    const three = plain[at]! | ((plain[at + 1] ?? 0) << 8) | ((plain[at + 2] ?? 0) << 16);
    this.bit = bit + count;
    return (three >>> (bit & 7)) & ((1 << count) - 1);
  }

  /** Check that all is used up, and that the states are what an encoder begins with. */
  finish() {
    if (this.word !== this.words.length) throw new StreamError('words are left over');
    if (this.states.some((state) => state !== LEAST_STATE)) throw new StreamError('states are not those of the beginning');
    const left = 8 * this.plain.length - this.bit;
    if (left > 7 || (left > 0 && this.bits(left) !== 0)) throw new StreamError('plain bits are left over');
  }
}

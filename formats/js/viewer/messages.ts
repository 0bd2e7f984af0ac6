// What the page and its worker say to each other.
import type { Json, PackHeader, Target } from '../src/index.js';

export type Request =
  | { ask: 'open'; file: Blob; trusted: boolean }
  | { ask: 'pictures'; rows: number[]; show?: [number, number, number] | undefined }
  | { ask: 'stored'; row: number };

export interface Answer {
  id: number;
  result?: unknown;
  error?: string;
  /** Whether the file may be one of a version before 1.3. */
  old?: boolean;
}

export interface Opened {
  header: PackHeader;
  labels: Int32Array | null;
  classNames: string[];
  provenance: { [name: string]: Json };
  chunks: number;
  scores: Float32Array | null;
  targets: Target[];
}

export interface Picture {
  row: number;
  bytes: Uint8ClampedArray<ArrayBuffer>;
}

export interface Stored {
  /** For each channel, frequency by frequency, the part of the tiles in which it is kept. */
  masks: Float32Array[];
  height: number;
  width: number;
  tiles: number;
  /** The part of all coefficients that is kept. */
  part: number;
}

/** How numbers or texts are stored; `other` is a type that a pack does not use. */
export interface StoredType {
  kind: 'int' | 'uint' | 'float' | 'text' | 'other';
  size: number;
  littleEndian: boolean;
}

/** `shape` is null where there is no value. */
export interface StoredAttribute {
  type: StoredType;
  shape: number[] | null;
  bytes: Uint8Array;
}

export interface StoredDataset {
  what: 'dataset';
  type: StoredType;
  shape: number[] | null;
  attributes: Map<string, StoredAttribute>;
  /** `elsewhere`: in other files or datasets. */
  layout: 'whole' | 'chunked' | 'elsewhere';
  chunks: number[];
  /** Numbers of HDF5's filters: 1 deflate, 2 shuffle. */
  filters: number[];
  /** Bytes `from` to `to` of a dataset that is stored whole. */
  read(from: number, to: number): Promise<Uint8Array>;
  /** Chunk `number` along the first axis, of `rows` rows and `size` bytes, unfiltered. */
  readChunk(number: number, rows: number, size: number): Promise<Uint8Array>;
}

export type StoredObject = StoredDataset | { what: 'group' | 'link' | 'other' };

/** A file of HDF5, as the reader of packs sees it. */
export interface Storage {
  attributes: Map<string, StoredAttribute>;
  /** The object at a path as `samples/values`; null where there is none. */
  find(path: string): StoredObject | null;
  size: number;
  close(): void;
}

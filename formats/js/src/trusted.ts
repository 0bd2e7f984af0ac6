import type { Dataset, File as H5File } from 'h5wasm';
import { refuse } from './errors.js';
import type { ByteSource } from './source.js';
import type { Storage, StoredAttribute, StoredDataset, StoredObject, StoredType } from './storage.js';

type Module = Awaited<(typeof import('h5wasm'))['ready']>;
type Metadata = Dataset['metadata'];

const KINDS: Record<number, 'int' | 'float' | 'text'> = { 0: 'int', 1: 'float', 3: 'text' };
let opened = 0;

/**
 * Open a file by h5wasm, the HDF5 library in WebAssembly, which parses whatever the file holds. All bytes of the
 * file are copied into memory.
 */
export async function openTrusted(source: ByteSource): Promise<Storage> {
  const { File, ready } = await import('h5wasm');
  const module = await ready;
  const name = `pack-${opened++}.h5`;
  module.FS.writeFile(name, await source.read(0, source.size));
  try {
    const file = new File(name, 'r');
    if (file.file_id < 0) throw new Error('not opened');
    return new Hdf5(file, module, name, source.size);
  } catch {
    module.FS.unlink(name);
    refuse('checksum', '/', 'HDF5 cannot open the file: it is damaged, or cut short');
  }
}

class Hdf5 implements Storage {
  readonly attributes: Map<string, StoredAttribute>;

  constructor(
    private readonly file: H5File,
    private readonly module: Module,
    private readonly name: string,
    readonly size: number,
  ) {
    this.attributes = this.attributesOf('/');
  }

  close() {
    this.file.close();
    this.module.FS.unlink(this.name);
  }

  find(path: string): StoredObject | null {
    let below = '';
    for (const name of path.split('/')) {
      const names = below === '' || this.module.get_type(this.file.file_id, below) === this.module.H5G_GROUP ? this.names(below) : [];
      if (!names.includes(name)) return null;
      below += `/${name}`;
      if (this.isLink(below)) return { what: 'link' };
    }
    const type = this.module.get_type(this.file.file_id, below);
    if (type === this.module.H5G_GROUP) return { what: 'group' };
    return type === this.module.H5G_DATASET ? this.dataset(below) : { what: 'other' };
  }

  private names(path: string): string[] {
    return this.module.get_names(this.file.file_id, path || '/', false);
  }

  private isLink(path: string): boolean {
    const { H5G_LINK, H5G_UDLINK } = this.module;
    const type = this.module.get_type(this.file.file_id, path);
    if (type === H5G_LINK || type === H5G_UDLINK || type < 0) return true;
    return (this.module.get_symbolic_link(this.file.file_id, path) as string | null) !== null;
  }

  private attributesOf(path: string): Map<string, StoredAttribute> {
    const id = this.file.file_id;
    const found = new Map<string, StoredAttribute>();
    for (const name of this.module.get_attribute_names(id, path) as string[]) {
      const metadata = this.module.get_attribute_metadata(id, path, name);
      const type = typeOf(metadata);
      const { shape } = metadata;
      const length = type.kind === 'other' || shape === null ? 0 : bytesOf(shape, type);
      const bytes = length ? this.fetch(length, (at) => this.module.get_attribute_data(id, path, name, at)) : new Uint8Array(0);
      found.set(name, { type, shape, bytes });
    }
    return found;
  }

  /** Bytes that HDF5 writes to an address. */
  private fetch(length: number, write: (address: bigint) => number): Uint8Array {
    const address = this.module._malloc(length);
    try {
      if (!address) throw new Error('no memory');
      if (write(BigInt(address)) < 0) throw new Error('HDF5 cannot read it');
      return this.module.HEAPU8.slice(Number(address), Number(address) + length);
    } finally {
      this.module._free(address);
    }
  }

  private dataset(path: string): StoredDataset {
    const id = this.file.file_id;
    const metadata = this.module.get_dataset_metadata(id, path);
    const type = typeOf(metadata);
    const rows = (start: number, counts: number[]) => {
      const from = counts.map((_, axis) => BigInt(axis === 0 ? start : 0));
      const strides = counts.map(() => 1n);
      const scalar = counts.length === 0;
      return this.fetch(bytesOf(counts, type), (at) =>
        scalar
          ? this.module.get_dataset_data(id, path, null, null, null, at)
          : this.module.get_dataset_data(id, path, counts.map(BigInt), from, strides, at),
      );
    };
    const shape = metadata.shape ?? [];
    return {
      what: 'dataset',
      type,
      shape: metadata.shape,
      attributes: this.attributesOf(path),
      layout: metadata.virtual_sources?.length ? 'elsewhere' : metadata.chunks ? 'chunked' : 'whole',
      chunks: metadata.chunks ?? [],
      filters: this.module.get_dataset_filters(id, path).map((one) => one.id),
      read: async (from, to) => {
        if (shape.length !== 1) return rows(0, shape).subarray(from, to);
        return from === to ? new Uint8Array(0) : rows(from / type.size, [(to - from) / type.size]);
      },
      readChunk: async (number, count) => rows(number * metadata.chunks![0]!, [count, ...shape.slice(1)]),
    };
  }
}

function typeOf(metadata: Metadata): StoredType {
  const kind = metadata.vlen || metadata.type === undefined ? undefined : KINDS[metadata.type];
  const { size, littleEndian } = metadata;
  if (kind === undefined) return { kind: 'other', size, littleEndian };
  return { kind: kind === 'int' && !metadata.signed ? 'uint' : kind, size, littleEndian };
}

function bytesOf(shape: number[], type: StoredType): number {
  return shape.reduce((product, length) => product * length, type.size);
}

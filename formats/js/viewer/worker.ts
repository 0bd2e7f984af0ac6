// Reads the pack, away from the page: a file that keeps the decoder busy does not stop the page.
import { openPack, PackError, toRGBA, type Pack } from '../src/index.js';
import type { Answer, Opened, Picture, Request, Stored } from './messages.js';

let pack: Pack | null = null;

async function open(file: Blob, trusted: boolean): Promise<Opened> {
  pack?.close();
  pack = null;
  pack = await openPack(file, { trusted });
  const { header, labels, classNames, provenance, chunks } = pack;
  const [scores, targets] = [await pack.scores(), await pack.targets()];
  return { header, labels, classNames, provenance, chunks, scores, targets };
}

async function pictures(rows: number[], show?: [number, number, number]): Promise<Picture[]> {
  const { header } = pack!;
  const pixels = await pack!.decode(rows);
  const size = pixels.length / rows.length;
  return rows.map((row, n) => ({ row, bytes: toRGBA(pixels.subarray(n * size, (n + 1) * size), header, show) }));
}

/** Which frequencies of an image are kept, for each channel, and in how large a part of its tiles. */
async function stored(row: number): Promise<Stored> {
  const { kept, tileHeight, tileWidth, tilesDown, tilesAcross } = await pack!.coefficients(row);
  const frequencies = tileHeight * tileWidth;
  const tiles = tilesDown * tilesAcross;
  const masks = Array.from({ length: pack!.header.channels }, (_, channel) => {
    const share = new Float32Array(frequencies);
    for (let n = 0; n < tiles * frequencies; n++) share[n % frequencies]! += kept[channel * tiles * frequencies + n]! / tiles;
    return share;
  });
  return { masks, height: tileHeight, width: tileWidth, tiles, part: kept.reduce((sum, one) => sum + one, 0) / kept.length };
}

const answers = {
  open: ({ file, trusted }: Extract<Request, { ask: 'open' }>) => open(file, trusted),
  pictures: ({ rows, show }: Extract<Request, { ask: 'pictures' }>) => pictures(rows, show),
  stored: ({ row }: Extract<Request, { ask: 'stored' }>) => stored(row),
};

self.onmessage = async ({ data }: MessageEvent<Request & { id: number }>) => {
  const answer: Answer = { id: data.id };
  try {
    answer.result = await answers[data.ask](data as never);
  } catch (error) {
    answer.error = (error as Error).message;
    answer.old = error instanceof PackError && error.message.includes('not stored plainly');
  }
  self.postMessage(answer);
};

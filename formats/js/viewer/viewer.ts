import type { Target } from '../src/index.js';
import type { Answer, Opened, Picture, Request, Stored } from './messages.js';

declare const WORKER: string;

const PAGE = 60;
/** A file that HDF5 parses for longer than this is given up. */
const PATIENCE_MS = 60_000;

class OldFile extends Error {}

/** The worker that reads the pack; one for each file. */
class Reader {
  private readonly address = URL.createObjectURL(new Blob([WORKER], { type: 'text/javascript' }));
  private readonly worker = new Worker(this.address);
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private next = 0;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const { resolve, reject } = this.waiting.get(data.id)!;
      this.waiting.delete(data.id);
      if (data.error === undefined) resolve(data.result);
      else reject(data.old ? new OldFile(data.error) : new Error(data.error));
    };
    this.worker.onerror = (event) => this.fail(event.message);
  }

  private fail(message: string) {
    for (const { reject } of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
  }

  async ask<T>(request: Request): Promise<T> {
    const id = this.next++;
    const timer = setTimeout(() => this.end('the file takes too long to read'), PATIENCE_MS);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        this.worker.postMessage({ ...request, id });
      });
    } finally {
      clearTimeout(timer);
    }
  }

  end(reason = 'another file was opened') {
    this.worker.terminate();
    URL.revokeObjectURL(this.address);
    this.fail(reason);
  }
}

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const [drop, chosen, problem, view, facts, grid, detail, detailBody] = ['drop', 'file', 'problem', 'view', 'facts', 'grid', 'detail', 'detail-body'].map((id) => byId(id));
const [classes, colors] = [byId<HTMLSelectElement>('classes'), byId<HTMLSelectElement>('colors')];

let reader: Reader | null = null;
let opened: Opened;
let rows: number[] = [];
let page = 0;

function make<K extends keyof HTMLElementTagNameMap>(tag: K, text = '', parent?: HTMLElement): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.textContent = text;
  parent?.append(element);
  return element;
}

async function open(file: File, trusted = false) {
  reader?.end();
  reader = new Reader();
  document.body.dataset.state = 'reading';
  problem!.replaceChildren();
  view!.hidden = true;
  try {
    opened = await reader.ask<Opened>({ ask: 'open', file, trusted });
    showFacts(file);
    listClasses();
    listColors();
    view!.hidden = false;
    await choose();
    document.body.dataset.state = 'open';
  } catch (error) {
    showProblem(file, error as Error);
  }
}

function showProblem(file: File, error: Error) {
  document.body.dataset.state = 'refused';
  make('p', `${file.name}: ${error.message}`, problem!);
  if (!(error instanceof OldFile)) return;
  make('p', 'Packs before version 1.3 can be read by the HDF5 library alone, within this page. Do so only where you know who made the file.', problem!);
  make('button', 'Read it by HDF5', problem!).onclick = () => open(file, true);
}

function showFacts(file: File) {
  const { header, provenance, targets } = opened;
  const perImage = file.size / header.samples;
  const raw = (header.channels * header.height * header.width * header.bits) / 8;
  const lines: [string, string][] = [
    ['File', `${file.name}, ${(file.size / 1e6).toFixed(2)} MB, EdgePack ${header.formatVersion}`],
    ['Images', `${header.samples} of ${header.channels} x ${header.height} x ${header.width}, ${header.bits} bits, ${header.colorSpace}`],
    ['Bytes an image', `${perImage.toFixed(0)}, ${((100 * perImage) / raw).toFixed(1)}% of ${raw}`],
    ['Codec', `${header.codec}, block ${header.block}${header.step ? `, step ${header.step}` : ''}`],
    ['Kept at most', `${header.components} of ${header.height * header.width} frequencies`],
    ['Chunks', `${opened.chunks} of ${header.chunkSamples} images`],
    ['Mean, deviation', `${header.mean.map((one) => one.toFixed(3)).join(' ')}, ${header.std.map((one) => one.toFixed(3)).join(' ')}`],
    ['Made', `${header.created} by ${header.generator}`],
  ];
  for (const { name, kind, unit } of targets) lines.push(['Target', `${name}: ${kind}${unit ? ` in ${unit}` : ''}`]);
  facts!.replaceChildren();
  for (const [name, text] of lines) {
    make('dt', name, facts!);
    make('dd', text, facts!);
  }
  byId('provenance').textContent = JSON.stringify(provenance, null, 2);
}

function listClasses() {
  const { classNames, labels, header } = opened;
  const counts = new Uint32Array(classNames.length);
  labels?.forEach((label) => counts[label]!++);
  const choices = [`all ${header.samples} images`, ...classNames.map((name, n) => `${name}: ${counts[n]}`)];
  classes.replaceChildren(...choices.map((text, n) => new Option(text, String(n - 1))));
}

function listColors() {
  const { channels } = opened.header;
  const choices = channels < 3 ? [] : [new Option('channels 1, 2, 3 as red, green, blue', '')];
  for (let n = 0; n < channels; n++) choices.push(new Option(`channel ${n + 1}`, String(n)));
  colors.replaceChildren(...choices);
}

async function choose() {
  const wanted = Number(classes.value);
  rows = [];
  for (let row = 0; row < opened.header.samples; row++) {
    if (wanted < 0 || opened.labels?.[row] === wanted) rows.push(row);
  }
  await turn(0);
}

async function turn(to: number) {
  page = to;
  const wanted = rows.slice(page * PAGE, (page + 1) * PAGE);
  const current = reader;
  const found = wanted.length ? await current!.ask<Picture[]>({ ask: 'pictures', rows: wanted, show: shown() }) : [];
  if (current !== reader || page !== to) return;
  grid!.replaceChildren(...found.map(card));
  byId('place').textContent = `${page + 1} of ${Math.max(1, Math.ceil(rows.length / PAGE))}`;
  byId<HTMLButtonElement>('back').disabled = page === 0;
  byId<HTMLButtonElement>('on').disabled = (page + 1) * PAGE >= rows.length;
}

function shown(): [number, number, number] | undefined {
  if (colors.value === '') return undefined;
  const channel = Number(colors.value);
  return [channel, channel, channel];
}

function nameOf(row: number): string {
  const { labels, classNames } = opened;
  return labels ? classNames[labels[row]!]! : `row ${row}`;
}

function paint({ bytes }: Picture): HTMLCanvasElement {
  const { height, width } = opened.header;
  return canvasOf(bytes, width, height);
}

function canvasOf(bytes: Uint8ClampedArray<ArrayBuffer>, width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width, height });
  canvas.getContext('2d')!.putImageData(new ImageData(bytes, width, height), 0, 0);
  return canvas;
}

function card(picture: Picture): HTMLElement {
  const button = document.createElement('button');
  const canvas = paint(picture);
  button.append(canvas);
  make('span', nameOf(picture.row), button);
  canvas.setAttribute('aria-label', `image ${picture.row}, ${nameOf(picture.row)}`);
  button.onclick = () => void look(picture).catch((error) => make('p', (error as Error).message, problem!));
  return button;
}

/** Show one image, what is known of it, and which of its frequencies are kept. */
async function look(picture: Picture) {
  const { row } = picture;
  const stored = await reader!.ask<Stored>({ ask: 'stored', row });
  const heading = make('h2', `${nameOf(row)}, image ${row}`);
  const lines = [`${(100 * stored.part).toFixed(1)}% of its numbers are kept.`];
  if (opened.scores) lines.push(`Score: ${opened.scores[row]!.toFixed(4)}.`);
  for (const target of opened.targets) lines.push(`${target.name}: ${ownValue(target, row)}.`);
  const masks = document.createElement('div');
  masks.className = 'masks';
  stored.masks.forEach((mask, channel) => {
    const figure = make('figure', '', masks);
    figure.append(maskCanvas(mask, stored));
    make('figcaption', `${planeName(channel)}: frequencies kept${stored.tiles > 1 ? `, in ${stored.tiles} tiles` : ''}`, figure);
  });
  detailBody!.replaceChildren(heading, paint(picture), make('p', lines.join(' ')), masks);
  (detail as HTMLDialogElement).showModal();
}

/** What a column says of one image. */
function ownValue({ kind, classes, width, values }: Target, row: number): string {
  const own: unknown[] = Array.from<unknown>(values.slice(row * width, (row + 1) * width) as ArrayLike<unknown>);
  if (kind === 'class') return classes[Number(own[0])]!;
  if (kind === 'multilabel') return classes.filter((_, n) => own[n] === 1).join(', ') || 'none';
  if (kind === 'probabilities') return classes.map((name, n) => `${name} ${Number(own[n]).toFixed(2)}`).join(', ');
  return own.join(', ');
}

function planeName(channel: number): string {
  const names = { ycbcr: ['Y', 'Cb', 'Cr'], rgb: ['Red', 'Green', 'Blue'], gray: ['Gray'], planes: [] }[opened.header.colorSpace];
  return names[channel] ?? `Channel ${channel + 1}`;
}

function maskCanvas(mask: Float32Array, { width, height }: Stored): HTMLCanvasElement {
  const bytes = new Uint8ClampedArray(4 * mask.length);
  mask.forEach((share, n) => bytes.set([20 + 60 * share, 30 + 180 * share, 40 + 160 * share, 255], 4 * n));
  return canvasOf(bytes, width, height);
}

chosen!.onchange = () => {
  const file = (chosen as HTMLInputElement).files?.[0];
  if (file) void open(file);
};
document.ondragover = (event) => {
  event.preventDefault();
  drop!.classList.add('over');
};
document.ondragleave = () => drop!.classList.remove('over');
document.ondrop = (event) => {
  event.preventDefault();
  drop!.classList.remove('over');
  const file = event.dataTransfer?.files[0];
  if (file) void open(file);
};
const report = (error: unknown) => make('p', (error as Error).message, problem!);
classes.onchange = () => void choose().catch(report);
colors.onchange = () => void turn(page).catch(report);
byId('back').onclick = () => void turn(page - 1).catch(report);
byId('on').onclick = () => void turn(page + 1).catch(report);
byId('close').onclick = () => (detail as HTMLDialogElement).close();
document.body.dataset.state = 'ready';

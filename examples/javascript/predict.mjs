// Classify images of a pack by an exported network, without Python: node predict.mjs photos.onnx photos.h5 [IMAGES]
// Prints a line of JSON for each image.
import { openAsBlob } from 'node:fs';
import { openPack } from 'edgepack';
import * as ort from 'onnxruntime-node';

const BATCH = 16;
const [model, file, images] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const pack = await openPack(await openAsBlob(file));
const { channels, height, width, samples } = pack.header;
const count = Math.min(samples, Number(images ?? samples));

for (let first = 0; first < count; first += BATCH) {
  const rows = Array.from({ length: Math.min(BATCH, count - first) }, (_, n) => first + n);
  // Pixels are on [0, 1], as the graph takes them: it normalizes them itself.
  const pixels = new ort.Tensor('float32', await pack.decode(rows), [rows.length, channels, height, width]);
  const { logits } = await session.run({ images: pixels });
  const classes = logits.dims[1];
  for (const [n, row] of rows.entries()) {
    const of = Array.from(logits.data.subarray(n * classes, (n + 1) * classes));
    const best = of.indexOf(Math.max(...of));
    console.log(JSON.stringify({ row, predicted: pack.classNames[best], label: pack.classNames[pack.labels[row]], logits: of }));
  }
}
pack.close();

// Decodes pictures and computes the network, beside the page. Pictures stay in this process.

import * as ort from "./ort.wasm.min.mjs";
import { square, withoutAlpha } from "./pictures.js";

const MAX_PIXELS = 100e6;
let model;
let session;

ort.env.wasm.numThreads = 1; // threads need headers that few static hosts send

async function load() {
  model = await (await fetch("model.json")).json();
  session = await ort.InferenceSession.create(model.file, { executionProviders: ["wasm"] });
}

const ready = load();
ready.then(
  () => postMessage({ kind: "ready", model }),
  (error) => postMessage({ kind: "failed", error: String(error) }),
);

async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file);
  if (bitmap.width * bitmap.height > MAX_PIXELS) throw new Error("over 100 megapixels");
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // under transparent parts
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const decoded = withoutAlpha(context.getImageData(0, 0, canvas.width, canvas.height));
  return square(decoded, model, file.type === "image/jpeg");
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b, 0); // of no logits, where there are no artists
  return powers.map((power) => power / sum);
}

async function answer(file) {
  await ready;
  const pixels = await pixelsOf(file);
  const shape = [1, 3, model.size, model.size];
  const { logits } = await session.run({ pixels: new ort.Tensor("uint8", pixels, shape) }, ["logits"]);
  const values = Array.from(logits.data);
  const count = model.vocab.length;
  const periods = softmax(values.slice(0, count).map((logit) => logit / model.temperature));
  return { periods, artists: softmax(values.slice(count)) };
}

// one picture after the other: two would only share the processor
let queue = Promise.resolve();
onmessage = ({ data: { number, file } }) => {
  queue = queue.then(() =>
    answer(file).then(
      (found) => postMessage({ kind: "answer", number, ...found }),
      (error) => postMessage({ kind: "error", number, error: String(error.message || error) }),
    ),
  );
};

// From a decoded picture to the pixels that the network sees, as artclf.data.pictures does it.
// A picture is {width, height, data}; data holds its RGB bytes, row by row.

/** RGB of RGBA pixels, which a canvas gives. */
export function withoutAlpha({ width, height, data }) {
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { width, height, data: rgb };
}

/** The pixels for the network: uint8 of shape (3, size, size), the channels one after the other. */
export function square(picture, { size, resize, max_size }, isJpeg) {
  const small = shrink(isJpeg ? reduce(picture, max_size) : picture, max_size);
  const region = resize === "squish" ? small : cut(small, size, resize);
  const resized = resizeSmoothly(region, size, size);
  const channels = new Uint8Array(3 * size * size);
  for (let place = 0; place < size * size; place++) {
    for (let channel = 0; channel < 3; channel++) {
      channels[channel * size * size + place] = resized.data[3 * place + channel];
    }
  }
  return channels;
}

/** A large JPEG at a half, a quarter or an eighth of its size, as Python decodes it. */
function reduce(picture, maxSize) {
  const longer = Math.max(picture.width, picture.height);
  const factor = [8, 4, 2].find((each) => Math.floor(longer / maxSize) >= each);
  if (!factor) return picture;
  const width = Math.ceil(picture.width / factor);
  const height = Math.ceil(picture.height / factor);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const bottom = Math.min((y + 1) * factor, picture.height);
    for (let x = 0; x < width; x++) {
      const right = Math.min((x + 1) * factor, picture.width);
      const sums = [0, 0, 0];
      for (let row = y * factor; row < bottom; row++) {
        let at = 3 * (row * picture.width + x * factor);
        for (let column = x * factor; column < right; column++) {
          sums[0] += picture.data[at++];
          sums[1] += picture.data[at++];
          sums[2] += picture.data[at++];
        }
      }
      const count = (bottom - y * factor) * (right - x * factor);
      for (let channel = 0; channel < 3; channel++) {
        data[3 * (y * width + x) + channel] = sums[channel] / count;
      }
    }
  }
  return { width, height, data };
}

/** The picture with its longer side at most maxSize px, as artclf.data.shrinking does it. */
export function shrink(picture, maxSize) {
  const scale = maxSize / Math.max(picture.width, picture.height);
  if (scale >= 1) return picture;
  const weightsOf = scale <= 0.5 ? weightsOfArea : weightsOfNeighbours;
  const width = Math.max(1, roundHalfToEven(picture.width * scale));
  const height = Math.max(1, roundHalfToEven(picture.height * scale));
  const columns = weights(picture.width, width, weightsOf);
  const rows = weights(picture.height, height, weightsOf);
  const mixed = mixRows(mixColumns(picture, columns), rows);
  return { width, height, data: Uint8ClampedArray.from(mixed.data, roundHalfToEven) };
}

/** The middle of a picture as a square, for `crop` and `pad`; what lies outside is black. */
function cut({ width, height, data }, size, resize) {
  const choose = resize === "pad" ? Math.max : Math.min;
  const side = Math.trunc(choose(width / size, height / size) * size);
  const left = Math.trunc((width - side) * 0.5);
  const top = Math.trunc((height - side) * 0.5);
  const region = new Uint8ClampedArray(side * side * 3);
  for (let y = Math.max(0, -top); y < Math.min(side, height - top); y++) {
    const first = Math.max(0, left);
    const last = Math.min(width, left + side);
    const from = 3 * ((y + top) * width + first);
    region.set(data.subarray(from, from + 3 * (last - first)), 3 * (y * side + first - left));
  }
  return { width: side, height: side, data: region };
}

/** What Pillow's resize with BILINEAR gives, but for rounding: columns first, bytes in between. */
export function resizeSmoothly(picture, width, height) {
  const columns = weights(picture.width, width, weightsOfTriangle);
  const rows = weights(picture.height, height, weightsOfTriangle);
  const narrow = width === picture.width ? picture : bytes(mixColumns(picture, columns));
  return height === picture.height ? narrow : bytes(mixRows(narrow, rows));
}

function bytes({ width, height, data }) {
  const half = 1 << 21; // the weights are whole numbers, 22 bits stand for 1
  return { width, height, data: Uint8ClampedArray.from(data, (sum) => Math.floor((sum + half) / (1 << 22))) };
}

/** For each of `count` new places the first old one that counts, and the weights from it on. */
function weights(length, count, weightsOf) {
  const scale = length / count;
  return Array.from({ length: count }, (_, place) => weightsOf(place, scale, length));
}

function weightsOfArea(place, scale, length) {
  const start = place * scale;
  const end = Math.min(start + scale, length);
  const first = Math.floor(start);
  const last = Math.min(Math.ceil(end - 1e-6), length);
  const covered = [];
  for (let old = first; old < last; old++) {
    covered.push(Math.min(old + 1, end) - Math.max(old, start));
  }
  const sum = covered.reduce((a, b) => a + b);
  return { first, weights: covered.map((share) => share / sum) };
}

function weightsOfNeighbours(place, scale, length) {
  const middle = Math.min(Math.max((place + 0.5) * scale - 0.5, 0), length - 1);
  const first = Math.floor(middle);
  const below = middle - first;
  return { first, weights: first + 1 < length ? [1 - below, below] : [1] };
}

function weightsOfTriangle(place, scale, length) {
  const support = Math.max(scale, 1);
  const centre = (place + 0.5) * scale;
  const first = Math.max(Math.trunc(centre - support + 0.5), 0);
  const last = Math.min(Math.trunc(centre + support + 0.5), length);
  const shares = [];
  for (let old = first; old < last; old++) {
    shares.push(Math.max(0, 1 - Math.abs((old - centre + 0.5) * (1 / support))));
  }
  const norm = 1 / shares.reduce((a, b) => a + b); // multiplied, as Pillow rounds
  return { first, weights: shares.map((share) => Math.trunc(0.5 + share * norm * (1 << 22))) };
}

function mixColumns({ width, height, data }, columns) {
  const mixed = new Float64Array(columns.length * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns.length; x++) {
      const { first, weights: shares } = columns[x];
      let at = 3 * (y * width + first);
      let red = 0;
      let green = 0;
      let blue = 0;
      for (const share of shares) {
        red += share * data[at++];
        green += share * data[at++];
        blue += share * data[at++];
      }
      const to = 3 * (y * columns.length + x);
      mixed[to] = red;
      mixed[to + 1] = green;
      mixed[to + 2] = blue;
    }
  }
  return { width: columns.length, height, data: mixed };
}

function mixRows({ width, data }, rows) {
  const mixed = new Float64Array(3 * width * rows.length);
  rows.forEach(({ first, weights: shares }, y) => {
    const row = mixed.subarray(3 * width * y, 3 * width * (y + 1));
    shares.forEach((share, number) => {
      const from = 3 * width * (first + number);
      for (let x = 0; x < 3 * width; x++) row[x] += share * data[from + x];
    });
  });
  return { width, height: rows.length, data: mixed };
}

function roundHalfToEven(number) {
  const whole = Math.round(number);
  return Math.abs(number % 1) === 0.5 && whole % 2 ? whole - 1 : whole;
}

'use strict';
const $ = (id) => document.getElementById(id);
const TOGETHER = 4;  // Images of a request: cancelling loses no more.
const FIELDS = {
  class: {text: 'Class', value: 0},
  guidance: {text: 'Guidance', value: 1, least: 0},
  temperature: {text: 'Temperature', value: 1, least: 0},
  top_k: {text: 'Top k (0: all)', value: 0, least: 0, most: 1e9, whole: true},
  top_p: {text: 'Top p', value: 1, above: 0, most: 1},
  seed: {text: 'Seed', value: 0, least: 0, most: 2 ** 32 - 64, whole: true},
  count: {text: 'Images', value: 6, least: 1, most: 64, whole: true},
  rows: {text: 'Rows of codes kept', least: 0, whole: true},
};
let served = {};
let image_bytes = null;  // Of the image that was taken.

// What a field's text should be instead, or ''.
function problem({name, value}) {
  const {least, above, most, whole} = FIELDS[name];
  const number = Number(value);
  if (!value.trim() || !Number.isFinite(number)) return 'Write a number.';
  if (whole && !Number.isInteger(number)) return 'Write a whole number.';
  if (number < least) return `Write ${least} or more.`;
  if (number <= above) return `Write more than ${above}.`;
  return number > most ? `Write ${most} or less.` : '';
}

function addField(form, prefix, name) {
  const id = prefix + name;
  const kind = {class: 'select', rows: 'input type="range"'}[name] ??
      'input autocomplete="off" inputmode="decimal"';
  form.querySelector('.fields').insertAdjacentHTML('beforeend', `
    <label><span>${FIELDS[name].text}</span>
      <${kind} id="${id}" name="${name}" aria-describedby="${id}_wrong">
      ${name === 'class' ? '</select>' : ''}
      <span id="${id}_wrong" class="wrong"></span></label>`);
  if (name === 'class') {
    const names = [...served.sampler.class_names, 'no class'];
    $(id).append(...names.map((x, i) => new Option(x, i)));
  }
  if (name === 'rows') {
    $(id).max = served.sampler.config.vim.config.model.grid_size;
    FIELDS.rows.value = Math.floor($(id).max / 2);
    $(id).oninput = tellRows;
  }
}

function tellRows() {
  const rows = $('complete_rows');
  rows.previousElementSibling.textContent =
      `${FIELDS.rows.text}: ${rows.value} of ${rows.max}`;
}

const inputs = (form = document) =>
    [...form.querySelectorAll('.fields [name]')];

// The values of a form, or null, and what is wrong beside each field.
function read(form) {
  for (const input of inputs(form)) {
    $(`${input.id}_wrong`).textContent = problem(input);
    input.setAttribute('aria-invalid', problem(input) !== '');
  }
  const wrong = inputs(form).find(problem);
  wrong?.focus();
  return wrong ? null : Object.fromEntries(
      inputs(form).map((x) => [x.name, Number(x.value)]));
}

const instance = (values, seeds = values.seed) => ({
  class_ids: values.class, seeds, temperature: values.temperature,
  top_k: values.top_k, top_p: values.top_p, guidance_scale: values.guidance,
});

// The address of what the fields hold, but for what is given.
function address(others = {}) {
  const found = new URLSearchParams();
  for (const {id, name, value} of inputs()) {
    const kept = others[id] ?? value;
    if (id === 'seed' || kept != FIELDS[name].value) found.set(id, kept);
  }
  return `#${found}`;
}

function follow() {
  const found = new URLSearchParams(location.hash.slice(1));
  for (const input of inputs()) {
    input.value = found.get(input.id) ?? FIELDS[input.name].value;
    if (input.selectedIndex === -1) input.selectedIndex = 0;
  }
  tellRows();
  if (found.has('seed')) draw();
}

async function predict(part, signature_name, instances, signal) {
  const body = JSON.stringify({signature_name, instances});
  const response = await fetch(`/v1/models/${served[part].name}:predict`,
                               {method: 'POST', body, signal});
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error.replace(/^example 0: /, ''));
  return answer.predictions;
}

// Does a form's work, told of as it goes; what it did before is given up.
async function run(form, work) {
  form.given_up?.abort();
  const mine = form.given_up = new AbortController();
  const begun = performance.now();
  const [cancel, elapsed, error] = ['.cancel', '.elapsed', '.error'].map(
      (x) => form.querySelector(x));
  let done = '';
  const told = (text) =>
      `${text}${done}, ${((performance.now() - begun) / 1e3).toFixed(1)} s`;
  const timer = setInterval(() => elapsed.textContent = told('Working'), 100);
  error.textContent = '';
  cancel.hidden = false;
  cancel.onclick = () => mine.abort();
  const [end, wrong] = await work(mine.signal, (text) => { done = text; }).then(
      () => [told('Done'), ''],
      ({message}) => mine.signal.aborted ? ['Cancelled', ''] : ['', message]);
  clearInterval(timer);
  if (form.given_up !== mine) return;
  elapsed.textContent = end;
  error.textContent = wrong;
  cancel.hidden = true;
}

function figure(url, caption, link, alt = caption) {
  const found = $('figure').content.cloneNode(true).firstElementChild;
  const [button, image, text, save, there] =
      found.querySelectorAll('button, img, span, a');
  image.src = save.href = url;
  image.alt = alt;
  text.textContent = caption;
  button.title = `Enlarge ${caption}`;
  button.onclick = () => enlarge(image);
  save.download = alt.replaceAll(/\W+/g, '-');
  if (link) there.href = link; else there.remove();
  return found;
}

function enlarge({src, alt, naturalWidth, naturalHeight}) {
  const fits = Math.min(innerWidth * .85 / naturalWidth,
                        innerHeight * .75 / naturalHeight);
  Object.assign($('large').querySelector('img'), {
    src, alt, width: naturalWidth * (fits > 1 ? Math.floor(fits) : fits)});
  $('large').showModal();
}

const png = (found) => `data:image/png;base64,${found.png_bytes.b64}`;

function draw() {
  const values = read($('settings'));
  if (!values) return;
  history.replaceState(null, '', address());
  const name = $('class').selectedOptions[0].text;
  run($('settings'), async (signal, tell) => {
    $('samples').replaceChildren();
    for (let i = 0; i < values.count; i += TOGETHER) {
      tell(`: ${i} of ${values.count}`);
      const length = Math.min(TOGETHER, values.count - i);
      const seeds = Array.from({length}, (_, j) => values.seed + i + j);
      const rows = seeds.map((x) => instance(values, x));
      const found = await predict('sampler', 'serving_default', rows, signal);
      $('samples').append(...seeds.map((seed, j) => figure(
          png(found[j]), `seed ${seed}`, address({seed, count: 1}),
          `${name}, seed ${seed}`)));
    }
    tell(`: ${values.count} of ${values.count}`);
  });
}

// Shows a part of the image until there is another.
function place(name, url) {
  const shown = figure(url, name);
  shown.id = name;
  if ($(name)) $(name).replaceWith(shown); else $('parts').append(shown);
}

function take(chosen) {
  if (!chosen) return;
  run($('completing'), async (signal) => {
    for (const id of ['parts', 'classes']) $(id).replaceChildren();
    image_bytes = null;
    try {
      const reader = new FileReader();
      reader.readAsDataURL(chosen);
      await new Promise((resolve) => { reader.onloadend = resolve; });
      if (!reader.result) throw new Error('it cannot be read');
      const bytes = {b64: reader.result.split(',')[1] ?? ''};
      const ask = async (part, signature) => served[part] &&
          (await predict(part, signature, [{image_bytes: bytes}], signal))[0];
      const [rebuilt, found] = await Promise.all([
        ask('tokenizer', 'reconstruct'), ask('probe', 'serving_default')]);
      image_bytes = bytes;
      place('original', reader.result);
      if (rebuilt) place('reconstruction', png(rebuilt));
      if (found) showClasses(found);
      await complete(signal);
    } catch (error) {
      throw new Error(`${chosen.name || 'The image'}: ${error.message}`);
    }
  });
}

async function complete(signal) {
  const values = served.sampler && read($('completing'));
  if (!image_bytes || !values) return;
  history.replaceState(null, '', address());
  const one = {image_bytes, kept_rows: values.rows, ...instance(values)};
  const [found] = await predict('sampler', 'complete', [one], signal);
  place('completion', png(found));
}

function showClasses(found) {
  $('classes').replaceChildren(...found.top_classes.map((name, i) => {
    const row = document.createElement('tr');
    const meter = document.createElement('meter');
    meter.value = found.top_scores[i];
    meter.setAttribute('aria-label', name);
    const share = `${(100 * meter.value).toFixed(1)} %`;
    [name, meter, share].forEach((x) => row.insertCell().append(x));
    return row;
  }));
}

async function start() {
  served = await (await fetch('/page.json')).json();
  const names = Object.values(served).map((x) => `${x.name} ${x.version}`);
  $('served').textContent = `Serving ${names.join(', ') || 'no model yet'}.`;
  $('sampling').hidden = $('completion_title').hidden = !served.sampler;
  $('image').hidden = !names.length;
  if (served.sampler) {
    for (const name in FIELDS) {
      if (name !== 'rows') addField($('settings'), '', name);
      if (name !== 'count') addField($('completing'), 'complete_', name);
    }
    follow();
    addEventListener('hashchange', follow);
  }
  document.body.dataset.ready = 'yes';
}

addEventListener('submit', (event) => event.preventDefault());
$('settings').addEventListener('submit', draw);
$('completing').onchange = () => {
  if (read($('completing')) && image_bytes) run($('completing'), complete);
};
$('file').onchange = () => take($('file').files[0]);
$('large').onclick = () => $('large').close();
addEventListener('paste', (event) => take(event.clipboardData?.files[0]));
for (const kind of ['dragover', 'dragleave', 'drop']) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') take(event.dataTransfer.files[0]);
  });
}
start().catch((error) => {
  $('served').textContent = `The server does not answer: ${error.message}`;
});

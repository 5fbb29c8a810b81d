// The page of decaf_web. Text from outside goes into the document as text only (textContent), never as markup.

const RECONNECT_MS = 1000;
const STALE_MS = 3000;
const SILENCE_MS = 5000; // the state comes at least every 2 s
const FORGOTTEN_MS = 10000;
const FORGOTTEN = { done: true, success: false, message: "decaf_web has lost this question, as after a restart: ask again" };
const FAILED_SHOWN = 3;

const byId = (id) => document.getElementById(id);

// A token in the address has become a cookie by now; it should not stay where it can be read over a shoulder.
if (location.search) history.replaceState(null, "", location.pathname);

/** An element with a class, text and children. */
function element(tag, { name = "", text = "", title = "" } = {}, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

/** Change an element's text only if it differs: a selection in it survives. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Make the children of a container match items by key; elements that stay are updated, so that a click on them is not lost. */
function reconcile(container, items, keyOf, create, update) {
  const known = new Map([...container.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, position) => {
    const key = String(keyOf(item));
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (container.children[position] !== child) container.insertBefore(child, container.children[position] ?? null);
  });
  known.forEach(removeChild);
}

/** Whoever works with the keyboard goes on beside what went away. */
function removeChild(child) {
  const hadFocus = child.contains(document.activeElement);
  const beside = child.nextElementSibling ?? child.previousElementSibling ?? child.parentElement.parentElement;
  child.remove();
  if (hadFocus) beside.querySelector("button")?.focus();
}

/** A websocket that comes back by itself between start() and stop(). */
class Live {
  /** One that says nothing for silenceMs, if that is given, counts as closed: what hangs, or was cut off, does not say so. */
  constructor(path, { open = () => {}, message, close = () => {} }, silenceMs = 0) {
    this.url = new URL(path, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.on = { open, message, close };
    this.silenceMs = silenceMs;
    this.started = false;
    this.socket = null;
  }

  start() {
    if (this.started) return;
    this.started = true;
    this.connect();
  }

  stop() {
    this.started = false;
    clearTimeout(this.retry);
    this.disconnect();
  }

  connect() {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "blob";
    socket.onopen = () => this.on.open(socket);
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.expect();
      this.on.message(event.data, socket);
    };
    socket.onclose = () => this.socket === socket && this.lose();
    this.expect();
  }

  expect() {
    clearTimeout(this.silence);
    if (this.silenceMs) this.silence = setTimeout(() => this.lose(), this.silenceMs);
  }

  lose() {
    this.disconnect();
    this.retry = setTimeout(() => this.connect(), RECONNECT_MS);
    this.on.close();
  }

  disconnect() {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.silence);
    socket?.close();
  }
}

/** One image view: draws a JPEG, then asks for the next, so that a slow line gets fewer images and never old ones. */
class View {
  constructor(name) {
    const figure = byId(name);
    this.canvas = figure.querySelector("canvas");
    this.placeholder = figure.querySelector(".placeholder");
    this.rate = figure.querySelector(".rate");
    this.drawn = [];
    this.problem = "";
    this.allowed = false;
    this.live = new Live(`live/${name}`, {
      open: (socket) => socket.send("next"),
      message: (data, socket) => this.take(data, socket),
    });
  }

  async take(data, socket) {
    try {
      if (typeof data === "string") throw new Error(JSON.parse(data).error);
      this.draw(await createImageBitmap(data));
    } catch (error) {
      this.drawn = [];
      this.problem = error.message;
    }
    this.update();
    if (socket.readyState === WebSocket.OPEN) socket.send("next");
  }

  draw(image) {
    if (this.canvas.width !== image.width) this.canvas.width = image.width;
    if (this.canvas.height !== image.height) this.canvas.height = image.height;
    this.canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
    this.drawn.push(performance.now());
    this.problem = "";
  }

  /** Show the picture, if there is one, or else why not. A picture that may not be seen yet is kept: it can be newer than the state. */
  allow(allowed, reason) {
    this.allowed = allowed;
    this.reason = reason;
    this.update();
  }

  forget() {
    this.drawn = [];
    this.problem = "";
  }

  update() {
    this.canvas.hidden = !(this.allowed && this.drawn.length);
    setText(this.placeholder, (this.allowed && this.problem) || this.reason);
  }

  /** Images a second over the last seconds, or that there are none. */
  showRate() {
    const now = performance.now();
    const last = this.drawn.at(-1);
    this.drawn = this.drawn.filter((time) => now - time < STALE_MS);
    const stale = last !== undefined && !this.drawn.length;
    if (stale) this.drawn = [last];
    this.canvas.classList.toggle("stale", stale);
    const text = stale ? `${Math.round((now - last) / 1000)} s old` : `${(this.drawn.length / (STALE_MS / 1000)).toFixed(1)} fps`;
    setText(this.rate, this.canvas.hidden ? "" : text);
  }
}

// --- services ---

function notify(text, kind = "error") {
  const notice = byId("notice");
  setText(notice, text);
  notice.dataset.kind = kind;
  notice.hidden = !text;
}

/** Call a service of the node; a failure is shown as the node words it. */
async function call(service, fields = {}) {
  notify("");
  let answer;
  try {
    const reply = await fetch(`api/${service}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    const text = await reply.text();
    const isJson = reply.headers.get("Content-Type")?.startsWith("application/json");
    answer = isJson ? JSON.parse(text) : { success: false, message: text };
  } catch {
    answer = { success: false, message: "decaf_web does not answer: is it still running?" };
  }
  if (answer.success === false) notify(answer.message);
  return answer;
}

/** Questions of this tab that have no outcome yet, by id. */
const questions = new Map();
let posting = 0;

/** Ask without waiting: a browser has few connections, and whoever waits for six answers could not even reset. */
function ask(event) {
  event.preventDefault();
  put({ expression: byId("expression").value, replace: byId("ask").elements.mode.value === "replace" });
}

async function put(question) {
  const { expression } = question;
  posting += 1;
  showAsking();
  const { id } = await call("ask", question);
  posting -= 1;
  if (id) questions.set(id, { expression, since: performance.now() });
  settle(state.questions);
}

/** See which questions have their outcome. */
function settle(outcomes) {
  for (const [id, asked] of questions) {
    const forgotten = state.node.name && performance.now() - asked.since > FORGOTTEN_MS;
    const outcome = outcomes.find((each) => each.id === id) ?? (forgotten ? FORGOTTEN : null);
    if (!outcome?.done) continue;
    questions.delete(id);
    if (outcome.message) notify(outcome.message, outcome.success ? "remark" : "error");
    const input = byId("expression");
    const untouched = document.activeElement === input && input.value === asked.expression;
    if (outcome.success && untouched) input.select();
  }
  showAsking();
}

function showAsking() {
  const busy = posting + questions.size > 0;
  byId("ask").setAttribute("aria-busy", String(busy));
  setText(byId("find"), busy ? "Finding …" : "Find");
  setText(byId("asking"), [...questions.values()].map((asked) => `Looking for ${asked.expression}`).join(", "));
}

// --- state ---

const PRESENCES = {
  online: (node) => (node.restarts ? `${node.name}, restarted ${node.restarts}×` : node.name),
  waiting: (node) => `Waiting for ${node.name}`,
  gone: (node) => `${node.name} is gone, or hangs`,
  silent: (node) => `${node.name} is silent`,
  connecting: () => "decaf_web does not answer",
  locked: () => "A token is needed",
};

/** What is said of the node, or of decaf_web. A node that is there and not active has the state of its lifecycle. */
const presenceText = (node) => (PRESENCES[node.presence] ?? (() => `${node.name} is ${node.presence}`))(node);

function showPresence(node) {
  const pill = byId("presence");
  pill.dataset.presence = node.presence;
  setText(pill, presenceText(node));
  byId("sign-in").hidden = node.presence !== "locked";
}

const removeButton = (title, action) => {
  const button = element("button", { name: "remove", text: "×", title });
  button.type = "button";
  button.setAttribute("aria-label", title);
  button.addEventListener("click", action);
  return button;
};

const queryName = (query) => query.expression || `${query.object_name || "object"}, pointed out`;

function makeQuery(query) {
  const head = element(
    "div",
    { name: "query-head" },
    element("span", { name: "sentence" }),
    element("span", { name: "likely", title: "How likely it is, by the language model, that there is such a thing" }),
    element("span", { name: "state" }),
    removeButton(`Remove this query: ${queryName(query)}`, () => call("remove_query", { query_id: query.id })),
  );
  const guess = element("button", { name: "guess quiet", text: "Track the best guess" });
  guess.type = "button";
  guess.addEventListener("click", () => put({ expression: query.expression, replace: false, accept_doubtful: true }));
  return element("li", { name: "query" }, head, element("p", { name: "reason" }), guess, element("ol", { name: "objects" }));
}

/** Whether it failed because nothing in view fits it: only then there is a presence. */
const isNotThere = (query) => query.state === "failed" && typeof query.presence === "number";

function updateQuery(item, query) {
  item.dataset.state = query.state;
  const sentence = item.querySelector(".sentence");
  sentence.title = queryName(query);
  setText(sentence, sentence.title);
  const stage = query.state === "running" && values("queries").stage;
  const state = isNotThere(query) ? "not there" : query.state;
  setText(item.querySelector(".state"), stage && stage !== "idle" ? stage.replaceAll("_", " ") : state);
  setText(item.querySelector(".likely"), typeof query.presence === "number" ? `${Math.round(100 * query.presence)} %` : "");
  item.querySelector(".guess").hidden = !isNotThere(query);
  setText(item.querySelector(".reason"), query.state === "waiting" ? waitText(query) : query.message);
  reconcile(item.querySelector(".objects"), query.objects, (object) => object.id, makeObject, updateObject);
}

/** When a query looked last that waits for what is not there yet. */
const waitText = (query) =>
  typeof query.looked_s === "number" ? `Not there yet, looked ${query.looked_s.toFixed(1)} s ago` : query.message;

function makeObject(object) {
  const dot = element("span", { name: "dot" });
  dot.style.setProperty("--colour", object.colour);
  return element(
    "li",
    { name: "object" },
    dot,
    element("span", { name: "label" }),
    element("span", { name: "id", text: `#${object.id}` }),
    element("span", { name: "state" }),
    element("span", { name: "score", title: "How well it fits the sentence, from 0 to 1" }),
    removeButton(`Stop tracking object ${object.id}`, () => call("remove_object", { object_id: object.id })),
  );
}

function updateObject(item, object) {
  item.dataset.state = object.state ?? "";
  setText(item.querySelector(".label"), object.label || "object");
  setText(item.querySelector(".state"), object.state ?? "");
  setText(item.querySelector(".score"), scoreText(object.score));
}

/** A score that is no number comes as null; an object that was on no image yet has none. */
const scoreText = (score) => (score === undefined ? "" : (score?.toFixed(2) ?? "–"));

function showQueries(queries) {
  const failed = queries.filter((query) => query.state === "failed").slice(-FAILED_SHOWN);
  const shown = queries.filter((query) => query.state !== "failed" || failed.includes(query));
  reconcile(byId("queries"), shown.reverse(), (query) => query.id, makeQuery, updateQuery);
  byId("no-queries").hidden = shown.length > 0;
}

function showAnswer(answer) {
  const stages = answer?.stages ?? [];
  setText(byId("total"), answer ? milliseconds(answer.total_ms) : "");
  const named = answer?.object_name ? ` → ${answer.object_name}` : "";
  setText(byId("answer"), answer ? `“${answer.expression}”${named}` : "Ask, and see here where the time goes.");
  reconcile(byId("bar"), stages, (stage) => stage.name, () => element("i"), (bar, stage) => {
    bar.style.setProperty("flex-grow", String(stage.ms ?? 0));
  });
  const create = (stage) => element("div", {}, element("dt", { text: words(stage.name) }), element("dd"));
  reconcile(byId("stages"), stages, (stage) => stage.name, create, (row, stage) => {
    setText(row.querySelector("dd"), milliseconds(stage.ms));
  });
}

function showDiagnostics(parts) {
  const create = (part) =>
    element(
      "article",
      {},
      element("h3", { text: part.part }),
      element("p", { name: "problem" }),
      element("dl"),
    );
  reconcile(byId("diagnostics"), parts, (part) => part.part, create, (article, part) => {
    article.dataset.level = part.level;
    setText(article.querySelector(".problem"), part.level === "ok" ? "" : part.message);
    reconcile(article.querySelector("dl"), part.values, (value) => value.name, makeValue, updateValue);
  });
  byId("no-diagnostics").hidden = parts.length > 0;
}

const makeValue = (value) => element("div", {}, element("dt", { text: splitUnit(value.name).name }), element("dd"));

function updateValue(row, value) {
  const text = formatted(value);
  setText(row.querySelector("dd"), text);
  row.querySelector("dd").title = text;
}

function showFigures() {
  const camera = values("camera");
  const tracking = values("tracking");
  const dropped = Object.entries(camera).filter(([name]) => name.startsWith("dropped_"));
  const figures = [
    { name: "camera", text: camera.input_rate_hz && formatted({ name: "input_rate_hz", text: camera.input_rate_hz }) },
    { name: "mask age", text: tracking.mask_age_p50_ms && formatted({ name: "mask_age_p50_ms", text: tracking.mask_age_p50_ms }) },
    { name: "read ahead", text: values("queries").read_ahead },
    { name: "dropped", text: dropped.length && String(dropped.reduce((sum, [, count]) => sum + (Number(count) || 0), 0)) },
  ].filter((figure) => figure.text);
  const create = (figure) => element("div", {}, element("dt", { text: figure.name }), element("dd"));
  reconcile(byId("figures"), figures, (figure) => figure.name, create, (row, figure) => {
    setText(row.querySelector("dd"), figure.text);
  });
}

const UNITS = { ms: "ms", hz: "Hz", mib: "MiB", seconds: "s" };

const words = (name) => name.replaceAll("_", " ");

/** "mask_age_p50_ms" is "mask age p50" in "ms". */
function splitUnit(name) {
  const parts = name.split("_");
  const unit = UNITS[parts.at(-1)] ?? "";
  return { name: (unit ? parts.slice(0, -1) : parts).join(" "), unit };
}

function formatted({ name, text }) {
  const { unit } = splitUnit(name);
  if (text === "" || text === "nan") return "–";
  return unit ? `${text} ${unit}` : text;
}

const milliseconds = (ms) => (ms === null ? "–" : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms)} ms`);

/** Figures of one part of the diagnostics, by name. */
function values(part) {
  const found = state.diagnostics.find((status) => status.part === part);
  return Object.fromEntries((found?.values ?? []).map((value) => [value.name, value.text]));
}

const nobody = (presence) => ({
  node: { name: "", presence, restarts: 0 }, queries: [], diagnostics: [], questions: [], answer: null, remark: "",
});
const NOTHING = nobody("connecting");
const LOCKED = nobody("locked");
let state = NOTHING;

function show(next) {
  const { name, presence, restarts } = next.node;
  const another = state.node.name && name && restarts !== state.node.restarts;
  if (another || presence === "waiting" || presence === "gone") views.forEach((view) => view.forget());
  state = next;
  showPresence(state.node);
  showQueries([...state.queries]);
  showAnswer(state.answer);
  showDiagnostics(state.diagnostics);
  showFigures();
  showViews();
}

function showViews() {
  const follows = ["online", "silent"].includes(state.node.presence);
  const looks = follows && state.queries.some((query) => query.state === "active" && query.expression);
  overlay.allow(follows, follows ? "Waiting for images" : presenceText(state.node));
  heatmap.allow(looks, looks ? "Waiting for the heat map" : "Shown while a sentence is tracked");
}

// --- connections ---

/** The state leads: images are asked for while it comes. */
const live = new Live("live/state", { message: receive, close: explain }, SILENCE_MS);

let remarked = "";

function receive(data) {
  show(JSON.parse(data));
  if (state.remark && state.remark !== remarked) notify(state.remark);
  remarked = state.remark;
  settle(state.questions);
  views.forEach((view) => view.live.start());
}

/** Browsers do not tell why a websocket failed. */
async function explain() {
  views.forEach((view) => view.live.stop());
  if (state !== LOCKED) show(NOTHING);
  const locked = await wantsToken();
  if (state === NOTHING || state === LOCKED) show(locked ? LOCKED : NOTHING);
}

async function wantsToken() {
  try {
    const reply = await fetch("app.js", { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) });
    return reply.status === 401;
  } catch {
    return false;
  }
}

/** Nothing is sent to a page that nobody sees. */
function followVisibility() {
  if (!document.hidden) live.start();
  else [live, ...views.map((view) => view.live)].forEach((each) => each.stop());
}

const overlay = new View("overlay");
const heatmap = new View("heatmap");
const views = [overlay, heatmap];
setInterval(() => views.forEach((view) => view.showRate()), 500);
byId("ask").addEventListener("submit", ask);
byId("reset").addEventListener("click", () => call("reset"));
document.addEventListener("visibilitychange", followVisibility);
show(NOTHING);
followVisibility();

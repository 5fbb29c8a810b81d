// The page of decaf_web. Text from outside goes into the document as text only (textContent), never as markup.

const RECONNECT_MS = 1000;
const STALE_MS = 3000;
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
  known.forEach((child) => child.remove());
}

/** A websocket that comes back by itself while the page is in view, and is closed while it is not. */
class Live {
  constructor(path, { open = () => {}, message, close = () => {} }) {
    this.url = new URL(path, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.on = { open, message, close };
    this.socket = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
    if (!document.hidden) this.connect();
  }

  connect() {
    if (this.socket) return;
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "blob";
    socket.onopen = () => this.on.open(socket);
    socket.onmessage = (event) => this.on.message(event.data, socket);
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.on.close();
      setTimeout(() => document.hidden || this.connect(), RECONNECT_MS);
    };
  }

  close() {
    const socket = this.socket;
    this.socket = null;
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
    new Live(`live/${name}`, {
      open: (socket) => socket.send("next"),
      message: (data, socket) => this.show(data, socket),
    });
  }

  async show(data, socket) {
    if (typeof data === "string") {
      this.clear(JSON.parse(data).error);
    } else {
      const image = await createImageBitmap(data);
      if (this.canvas.width !== image.width) this.canvas.width = image.width;
      if (this.canvas.height !== image.height) this.canvas.height = image.height;
      this.canvas.getContext("2d").drawImage(image, 0, 0);
      image.close();
      this.canvas.hidden = false;
      this.drawn.push(performance.now());
    }
    if (socket.readyState === WebSocket.OPEN) socket.send("next");
  }

  clear(reason) {
    this.canvas.hidden = true;
    this.drawn = [];
    setText(this.placeholder, reason);
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
  if (!answer.success) notify(answer.message);
  else if (service === "query" && answer.message) notify(answer.message, "remark");
  return answer;
}

let asking = 0;

async function ask(event) {
  event.preventDefault();
  const expression = byId("expression");
  const replace = byId("ask").elements.mode.value === "replace";
  byId("ask").classList.toggle("busy", ++asking > 0);
  const answer = await call("query", { expression: expression.value, replace });
  byId("ask").classList.toggle("busy", --asking > 0);
  if (answer.success) expression.select();
}

// --- state ---

const PRESENCES = {
  online: (node) => (node.restarts ? `${node.name}, restarted ${node.restarts}×` : node.name),
  waiting: (node) => `Waiting for ${node.name}`,
  silent: (node) => `${node.name} is silent`,
  connecting: () => "decaf_web does not answer",
};

function showPresence(node) {
  const pill = byId("presence");
  pill.dataset.presence = node.presence;
  setText(pill, PRESENCES[node.presence](node));
}

const removeButton = (title, action) => {
  const button = element("button", { name: "remove", text: "×", title });
  button.type = "button";
  button.setAttribute("aria-label", title);
  button.addEventListener("click", action);
  return button;
};

function makeQuery(query) {
  const head = element(
    "div",
    { name: "query-head" },
    element("span", { name: "sentence", text: query.expression, title: query.expression }),
    element("span", { name: "state" }),
    removeButton("Remove this query", () => call("remove_query", { query_id: query.id })),
  );
  return element("li", { name: "query" }, head, element("p", { name: "reason" }), element("ol", { name: "objects" }));
}

function updateQuery(item, query) {
  item.dataset.state = query.state;
  const stage = query.state === "running" && values("queries").stage;
  setText(item.querySelector(".state"), stage && stage !== "idle" ? stage.replaceAll("_", " ") : query.state);
  setText(item.querySelector(".reason"), query.message);
  reconcile(item.querySelector(".objects"), query.objects, (object) => object.id, makeObject, updateObject);
}

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
  setText(item.querySelector(".score"), object.score?.toFixed(2) ?? "");
}

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
    bar.style.setProperty("flex-grow", String(stage.ms));
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
    { name: "camera", text: camera.input_rate_hz && `${camera.input_rate_hz} Hz` },
    { name: "mask age", text: tracking.mask_age_p50_ms && formatted({ name: "mask_age_p50_ms", text: tracking.mask_age_p50_ms }) },
    { name: "dropped", text: dropped.length && String(dropped.reduce((sum, [, count]) => sum + Number(count), 0)) },
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

const milliseconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms)} ms`);

/** Figures of one part of the diagnostics, by name. */
function values(part) {
  const found = state.diagnostics.find((status) => status.part === part);
  return Object.fromEntries((found?.values ?? []).map((value) => [value.name, value.text]));
}

const NOTHING = { node: { name: "", presence: "connecting", restarts: 0 }, queries: [], diagnostics: [], answer: null };
let state = NOTHING;

function show(next) {
  state = next;
  showPresence(state.node);
  showQueries([...state.queries]);
  showAnswer(state.answer);
  showDiagnostics(state.diagnostics);
  showFigures();
  showPlaceholders();
}

function showPlaceholders() {
  const { presence, name } = state.node;
  if (presence !== "online" && presence !== "silent") {
    const reason = presence === "waiting" ? `Waiting for ${name}` : "Waiting for decaf_web";
    overlay.clear(reason);
    heatmap.clear("Shown while something is tracked");
  } else {
    if (overlay.canvas.hidden) setText(overlay.placeholder, "Waiting for images");
    if (!state.queries.some((query) => query.state === "active")) heatmap.clear("Shown while something is tracked");
    else if (heatmap.canvas.hidden) setText(heatmap.placeholder, "Waiting for the heat map");
  }
}

const overlay = new View("overlay");
const heatmap = new View("heatmap");
setInterval(() => [overlay, heatmap].forEach((view) => view.showRate()), 500);
byId("ask").addEventListener("submit", ask);
byId("reset").addEventListener("click", () => call("reset"));
show(NOTHING);
new Live("live/state", { message: (data) => show(JSON.parse(data)), close: () => show(NOTHING) });

// @ts-check
// The page: the user's newest documents as they are in the database, moved along by live events.
// Events only add to what was read; whenever some may have been missed, all is read anew.
import { connect } from "/live/tidings.js";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

// The token comes in the fragment of the address, which browsers send to nobody.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token") ?? "";

/** @param {string} path @param {RequestInit} [init] */
async function call(path, init = {}) {
  const response = await fetch(path, {
    ...init, headers: { Authorization: "Bearer " + token, "Content-Type": "application/json", ...init.headers },
  });
  if (response.status === 401) throw new Error("the token is missing or wrong");
  const body = await response.json();
  if (!response.ok) throw new Error(body.errors?.join("; ") ?? response.statusText);
  return body;
}

/** A new trace, which goes on through all services (W3C Trace Context). */
function traceparent() {
  const hex = (/** @type {number} */ bytes) =>
    [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
  return `00-${hex(16)}-${hex(8)}-01`;
}

// Documents.

/** @typedef {{ id: string, name: string, status: string, step?: string, progress: number, remainingMs?: number,
 *   results?: any, error?: string, version: number, createdAt: string }} Doc */

/** @type {Map<string, Doc>} */ const documents = new Map();
/** @type {Map<string, () => void>} */ const left = new Map(); // leaves a document's group, by id
const FINAL = ["processed", "failed"];
const SHOWN = 100; // as many as a list has, and fewer than the groups that a connection may join: all of them are live

/** Takes what is newer than what is shown. @param {Doc} doc */
function update(doc) {
  const known = documents.get(doc.id);
  if (known && (FINAL.includes(known.status) || (known.version > doc.version && !FINAL.includes(doc.status)))) return;
  const shown = { ...known, ...doc };
  documents.set(doc.id, shown);
  if (FINAL.includes(shown.status)) {
    left.get(doc.id)?.();
    left.delete(doc.id);
  } else if (!left.has(doc.id)) follow(doc.id);
  render(shown);
  if (documents.size > SHOWN) forget(/** @type {HTMLElement} */ ($("documents").lastElementChild));
}

/** Shows a document no longer. @param {HTMLElement} row */
function forget(row) {
  left.get(row.id)?.();
  left.delete(row.id);
  documents.delete(row.id);
  row.remove();
  count();
}

/** Follows a document that is not final. @param {string} id */
function follow(id) {
  left.set(id, live.join("document_" + id, { event: onEvent, joined: () => refresh(), reset: () => refresh() }));
}

/** @param {{ type: string, data: any }} event */
function onEvent({ type, data }) {
  const known = documents.get(data.documentId);
  if (!known) return;
  switch (type) {
    case "document.progressed":
      update({ ...known, ...data, id: known.id });
      break;
    case "document.processed":
      update({ ...known, id: known.id, status: "processed", step: "", progress: 100, results: data.processingResults });
      break;
    case "document.failed":
      update({ ...known, id: known.id, status: "failed", step: "", error: data.error });
  }
}

/** The newest first. @param {Doc} a @param {Doc} b */
function newer(a, b) {
  const time = Date.parse(a.createdAt) - Date.parse(b.createdAt);
  return time > 0 || (time === 0 && a.id > b.id);
}

/** @param {Doc} doc */
function render(doc) {
  let row = /** @type {HTMLTableRowElement | null} */ (document.getElementById(doc.id));
  if (!row) {
    row = document.createElement("tr");
    row.id = doc.id;
    for (let i = 0; i < 6; i++) row.append(document.createElement("td"));
    row.cells[1].append(Object.assign(document.createElement("span"), { className: "status" }));
    row.cells[2].append(Object.assign(document.createElement("progress"), { max: 100 }));
    const rows = [...$("documents").children];
    $("documents").insertBefore(row, rows.find((r) => newer(doc, /** @type {Doc} */ (documents.get(r.id)))) ?? null);
  }
  const final = FINAL.includes(doc.status);
  row.dataset.status = doc.status;
  row.cells[0].textContent = doc.name;
  /** @type {HTMLElement} */ (row.cells[1].firstChild).textContent = doc.status;
  /** @type {HTMLProgressElement} */ (row.cells[2].firstChild).value = doc.progress;
  row.cells[3].textContent = final ? "" : doc.step ?? "";
  row.cells[4].textContent = final || !doc.remainingMs ? "" : (doc.remainingMs / 1000).toFixed(1) + " s";
  row.cells[5].textContent = doc.status === "failed" ? doc.error ?? "" : results(doc.results);
  count();
}

function count() {
  const of = (/** @type {string} */ s) => [...documents.values()].filter((d) => d.status === s).length;
  const counts = ["queued", "processing", ...FINAL].map((s) => `${of(s)} ${s}`).join(", ");
  $("counts").textContent = (documents.size < SHOWN ? "" : `The newest ${SHOWN}: `) + counts;
}

/** What the steps have found so far. @param {any} r */
function results(r) {
  const found = [r?.category, r?.words && `${r.words} words`].filter(Boolean).join(", ");
  const degraded = r?.degraded?.length ? `(without the service: ${r.degraded.join(", ")})` : "";
  return [[found, r?.summary].filter(Boolean).join(": "), degraded].filter(Boolean).join(" ");
}

// The connection. What is shown is true while it is open and all was read; else the page says
// how it is, and since when.

let open = false;

/** @param {string} state */
function onState(state) {
  open = state === "open";
  if (open) refresh();
  else if (state === "closed") lost("not connected: the token is missing or wrong");
  else if (state === "waiting" || $("connection").dataset.state !== "connecting") lost("connection lost");
}

/** @param {string} text */
function lost(text) {
  const box = $("connection");
  if (box.dataset.state === "open") $("since").textContent = `This is how it was at ${new Date().toLocaleTimeString()}.`;
  box.dataset.state = "lost";
  box.textContent = text;
  document.body.dataset.stale = "";
}

function isLive() {
  const box = $("connection");
  box.dataset.state = "open";
  box.textContent = "live";
  $("since").textContent = "";
  delete document.body.dataset.stale;
}

const live = connect("/live/", { token: () => token, minDelay: 200, maxDelay: 5000, onState });

let reading = false, again = false;

/** Reads all documents anew; what is called meanwhile makes it read once more. */
async function refresh() {
  again = true;
  if (reading) return;
  reading = true;
  try {
    while (again) {
      again = false;
      for (const doc of (await call("/documents")).documents) update(doc);
    }
    if (open) isLive();
  } catch (error) {
    lost(`can't read the documents: ${/** @type {Error} */ (error).message}`);
    setTimeout(refresh, 1000);
  } finally {
    reading = false;
  }
}

// The server may have lost its broker, and so events, while the connection stood.
setInterval(() => open && refresh(), 5000);

// Submitting.

$("submit").addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const file of /** @type {HTMLInputElement} */ ($("files")).files ?? []) {
    try {
      const body = JSON.stringify({ name: file.name, content: await file.text() });
      update(await call("/documents", { method: "POST", body, headers: { traceparent: traceparent() } }));
      $("told").textContent = "";
    } catch (error) {
      $("told").textContent = `${file.name}: ${/** @type {Error} */ (error).message}`;
    }
  }
});

// Dependencies.

async function dependencies() {
  try {
    const { dependencies } = await call("/dependencies");
    $("dependencies").replaceChildren(...dependencies.map((/** @type {any} */ d) => {
      const item = document.createElement("li");
      item.dataset.status = d.status;
      item.append(Object.assign(document.createElement("span"), { className: "status", textContent: d.status }),
        ` ${d.name} since ${new Date(d.since).toLocaleTimeString()}${d.error ? ": " + d.error : ""}`);
      return item;
    }));
    $("checked").textContent = "";
  } catch {
    $("checked").textContent = "The server can't be asked.";
    $("dependencies").replaceChildren();
  }
  setTimeout(dependencies, 2000);
}

// Who the user is, and so which group tells of new documents, is the server's to say.
async function start() {
  try {
    const { user } = await call("/me");
    live.join("user_" + user, {
      event: ({ data }) => call("/documents/" + data.documentId).then(update, refresh), joined: refresh, reset: refresh,
    });
    dependencies();
  } catch (error) {
    lost(`not connected: ${/** @type {Error} */ (error).message}`);
    if (token && !/** @type {Error} */ (error).message.includes("token")) setTimeout(start, 1000);
  }
}
start();

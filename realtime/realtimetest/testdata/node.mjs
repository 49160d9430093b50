// node node.mjs BASE TRANSPORT: runs the scenario with the client that the hub serves.
const [base, transport] = process.argv.slice(2);
const load = async (path) => {
  const text = await (await fetch(base + path)).text();
  return import("data:text/javascript," + encodeURIComponent(text));
};
const { connect } = await load("/live/tidings.js");
const { scenario } = await load("/scenario.js");
const control = (path) => fetch(base + "/control/" + path, { method: "POST" }).then((r) => { if (!r.ok) throw r.status; });
const result = await scenario({ connect, url: base + "/live/", transport, control }).catch((error) => ({ error: String(error) }));
console.log(JSON.stringify(result));

// What the server is asked. An API key is asked for once, and kept as long as the tab is open.

const KEY = "fewfit-key";

async function askKey() {
  const dialog = document.getElementById("key");
  const input = document.getElementById("key-value");
  const refused = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  document.getElementById("key-said").textContent = refused
    ? "The server does not take this key; try another."
    : "This server asks for a key. It is kept until the tab is closed.";
  input.value = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (!input.value) throw new Error("This server asks for an API key, and none was given; load the page again to give one");
  sessionStorage.setItem(KEY, input.value);
}

async function send(method, path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (method !== "GET") {
    headers["Content-Type"] = body instanceof Blob ? "application/octet-stream" : "application/json";
  }
  const data = method === "GET" ? undefined : body instanceof Blob ? body : JSON.stringify(body ?? {});
  try {
    return await fetch(path, { method, headers, body: data, cache: "no-store" });
  } catch {
    throw new Error("The server does not answer; what was saved is safe. Is it still running?");
  }
}

let asking = null;

async function answered(method, path, body) {
  let response;
  for (;;) {
    const given = sessionStorage.getItem(KEY);
    response = await send(method, path, body);
    if (response.status !== 401) break;
    if (sessionStorage.getItem(KEY) === given) asking ||= askKey().finally(() => { asking = null; });
    await asking;
  }
  if (response.ok) return response;
  let detail = `The server answered ${response.status}`;
  try {
    detail = (await response.json()).error.message;
  } catch { /* not one of ours */ }
  throw new Error(detail);
}

export async function call(method, path, body) {
  return (await answered(method, path, body)).json();
}

export async function download(path, name) {
  const blob = await (await answered("GET", path)).blob();
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export function address(name, ...rest) {
  return ["page/tasks", ...[name, ...rest].map((part) => encodeURIComponent(part))].join("/");
}

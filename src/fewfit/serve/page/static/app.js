import { complain, fill, h, quiet } from "./dom.js";
import { home } from "./home.js";
import { task } from "./task.js";

const main = document.getElementById("main");
let leave = () => {};

async function show(first) {
  leave();
  leave = () => {};
  quiet();
  const name = location.hash.startsWith("#/task/") ? decodeURIComponent(location.hash.slice(7)) : null;
  if (location.hash === "#main") return;
  fill(document.getElementById("crumb"), name === null ? "" : h("span", { "aria-current": "page" }, name));
  document.title = name === null ? "fewfit" : `${name} – fewfit`;
  try {
    const page = name === null ? await home() : await task(name);
    fill(main, page.element);
    leave = page.leave || leave;
    if (!first) main.focus();
  } catch (error) {
    fill(main, h("h1", {}, name ?? "fewfit"), h("p", {}, h("a", { href: "#/" }, "All tasks")));
    complain(error);
  }
}

// A file that misses the place for it is not opened in place of the page.
for (const event of ["dragover", "drop"]) addEventListener(event, (e) => e.preventDefault());
addEventListener("hashchange", () => show(false));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
show(true);

// What there is to take along.
import { address, call, download } from "./api.js";
import { announce, button, complain, field, h, quiet, section } from "./dom.js";

export function take(desk) {
  const { name } = desk;
  const get = (path, file) => () => download(address(name, path), file).then(() => announce(`${file} is saved`), complain);
  const code = h("pre", { tabindex: "0", "aria-label": "Python" });
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(code.textContent);
    announce("Copied");
  });
  const zip = button("Classifier (zip)", get("artifact.zip", `${name}.zip`));
  const fitted = h("div", {}, h("p", {}, "Unpacked, three lines load it:"), code, navigator.clipboard ? copy : null);
  const typed = h("input", { autocomplete: "off", spellcheck: "false" });
  const gone = h("form", { on: { submit: remove } },
    field(`To delete the task, its texts and its labels for good, type ${name}`, typed),
    h("p", { class: "row" }, h("button", {}, "Delete for good")));

  async function remove(event) {
    event.preventDefault();
    quiet();
    try {
      await call("DELETE", address(name), { name: typed.value });
      announce(`${name} is deleted`);
      location.hash = "#/";
    } catch (error) {
      complain(error);
    }
  }

  const element = section("Take it with you", h("p", { class: "row" }, button("Labels (CSV)", get("labels.csv", `${name}.csv`)), zip), fitted,
    h("details", {}, h("summary", {}, "Delete this task"), gone));
  return {
    element,
    update(state) {
      fitted.hidden = zip.hidden = !state.fitted;
      code.textContent = state.python;
    },
  };
}

"use strict";
const rows = [...document.querySelectorAll("[data-state]")];
const buttons = [...document.querySelectorAll("[data-show]")];
const hiddenWords = document.getElementById("hidden");

function show(wanted) {
  let hidden = 0;
  for (const row of rows) {
    row.hidden = Boolean(wanted) && !row.dataset.groups.split(" ").includes(wanted);
    hidden += row.hidden;
  }
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === wanted));
  hiddenWords.textContent = hidden ? `${hidden} of ${rows.length} studies are hidden by this filter.` : "";
}

async function copy(button) {
  const uid = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(uid.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(uid);
    button.textContent = "press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "copy"; }, 2000);
}

for (const button of buttons) button.addEventListener("click", () => show(button.dataset.show));
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copy(button));
document.querySelector(".filters").hidden = rows.length === 0;
for (const button of document.querySelectorAll(".copy")) button.hidden = false;

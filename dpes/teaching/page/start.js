/* Fill every figure of the page that is still empty. */
const KINDS = { front: exploreFront, generations, toy, drag };
for (const root of document.querySelectorAll(".dpes-explore:not([data-ready])")) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  root.setAttribute("data-ready", "");
  KINDS[data.kind](root, data);
}

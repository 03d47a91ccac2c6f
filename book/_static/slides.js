// Arrow keys, space and page keys walk through the slides, as a presenter's remote control does.
const STEPS = {ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1};
addEventListener("keydown", event => {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  scrollTo({top: (Math.round(scrollY / innerHeight) + step) * innerHeight, behavior: "instant"});
});

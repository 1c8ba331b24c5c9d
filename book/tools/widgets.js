// The widget manager typesets labels through MathJax 2's queue, and these pages carry MathJax 3.
window.addEventListener("load", () => {
  if (!window.MathJax) return;
  MathJax.Hub = {
    Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])),
  };
});

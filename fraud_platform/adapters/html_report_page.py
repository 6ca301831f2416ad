"""The look of an evaluation's page, and the script of its threshold explorer."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
section { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
label { display: block; margin: .4rem 0; }
input[type=range] { width: 24rem; vertical-align: middle; }
img { max-width: 100%; }
"""

SCRIPT = """
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("explorer-data").textContent);
  var stepUp = document.getElementById("step_up");
  var decline = document.getElementById("decline");
  function show(moved) {
    var i = Number(stepUp.value), j = Number(decline.value);
    if (j < i) {
      if (moved === decline) { i = j; stepUp.value = i; } else { j = i; decline.value = j; }
    }
    data.grid[i][j - i].forEach(function (text, place) {
      document.getElementById("explored-" + place).textContent = text;
    });
  }
  stepUp.value = data.start[0];
  decline.value = data.start[1];
  [stepUp, decline].forEach(function (one) {
    one.addEventListener("input", function () { show(one); });
  });
  show(null);
}());
"""

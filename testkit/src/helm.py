"""Checks and renders a chart with Helm's own code, inside this process.

Reads one JSON object from standard input: `chart`, its folder; `values`, `name` and `namespace`
of a release. Writes one JSON object: `lint`, what Helm finds wrong; `manifests`, the text of each
template by its path; and `objects`, the same as Kubernetes reads it. If Helm refuses the values,
it is `refused`, with the reason.
"""

import json
import sys

import helm_python as helm


def main():
    request = json.load(sys.stdin)
    chart, values = request["chart"], request["values"]
    try:
        with helm.Chart.load(chart) as loaded:
            loaded.validate_schema(values)
            rendered = loaded.render(
                values, name=request["name"], namespace=request["namespace"]
            )
    except helm.HelmError as why:
        json.dump({"refused": str(why)}, sys.stdout)
        return
    lint = helm.lint(chart, values, strict=True, namespace=request["namespace"])
    texts = {path: text for path, text in rendered.items() if text.strip()}
    manifests = {path: text for path, text in texts.items() if path.endswith(".yaml")}
    objects = {path: helm.values_from_yaml(text) for path, text in manifests.items()}
    # 0 is unknown, 1 is information, such as that a chart has no icon.
    wrong = [it["error"] for it in lint["messages"] if it["severity"] != 1]
    answer = {
        "lint": wrong + lint["errors"],
        "manifests": manifests,
        "objects": objects,
    }
    json.dump(answer, sys.stdout)


main()

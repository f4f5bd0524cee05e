"""Compare: models, baselines and the paper side by side, with noise floors."""

from __future__ import annotations

import streamlit as st

from app.components.comparison import distributions, figures_chart, metric_table, pictures
from app.components.page import error_box, page_header
from app.services import reports

page_header(
    "Compare",
    "The same figures for every model, over stated numbers of crystals. The noise floor is the "
    "training data scored as if it were a model: no difference smaller than its distance to the "
    "ideal means anything.",
)
found, wrong = reports.found()
for sentence in wrong:
    st.warning(sentence, icon=":material/warning:")
files = st.file_uploader("Your own report.json, from `cdvae evaluate`", type="json",
                         accept_multiple_files=True, max_upload_size=5)  # fmt: skip
for file in files or []:
    with error_box(stop=False):
        found.append(reports.uploaded(file.name, file.getvalue()))
if not found:
    st.html('<p class="hint">There are no reports yet: `cdvae evaluate` makes them.</p>')
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    tasks = [task for task in reports.TASKS if any(f.report.task == task for f in found)]
    task = st.segmented_control("Task", tasks, default=tasks[0], required=True, key="task",
                                format_func=str.capitalize, persist_state="session")  # fmt: skip
    of_task = [f for f in found if f.report.task == task]
    scales = list(dict.fromkeys(f.scale for f in of_task))
    scale = st.selectbox(
        "Against", scales, key=f"scale-{task}", width=320,
        format_func="{0[0]}, cut-offs of {0[1]}".format, persist_state="session",
        help="The reference and the cut-offs. Figures by different ones do not compare.",
    )  # fmt: skip
chosen = [f for f in of_task if f.scale == scale]
metric_table(chosen, task, scale)
figures_chart(chosen, task, scale)
distributions(chosen, scale)
pictures(chosen, task)

"""Names of columns, as in `plain`: without upper case, spaces and signs."""

from __future__ import annotations

import re


def _words(text: str) -> dict[str, None]:
    """Words in their order."""
    return dict.fromkeys(text.split())


# names without spaces, signs and upper case; of the first ones that occur
FILE_NAMES = _words(
    """filename imagename filepath imagepath file image path imagefile imgname imgpath img
    photo picture imageindex imageid imageurl url uri id"""
)
URLS = _words("imageurl url uri id")  # of these
LABELS = _words(
    """labels tags classes categories keywords labelnames classnames predicted schlagwörter
    schlagworte stichwörter étiquettes etiquetas etichette 标签 类别 タグ ラベル"""
)
LABEL = _words(
    """label tag class category labelname classname categoryname keyword target choice attribute
    object finding"""
)
# what may hold the labels even beside a column called tags or labels
RIVAL = re.compile(".*(label|class|category|categorie|groundtruth|ytrue|target)(es|s)?")
SPLIT = _words("split subset set partition phase mluse usage datasetsplit dataset part")
IS_SPLIT = {"isvalid": "val", "isval": "val", "isvalidation": "val", "istest": "test"}
IS_SPLIT |= {"istrain": "train"}
TRUTH = _words("confidence value present presence ispresent truth istrue")
# the labels that somebody looked for on an image
CHECKED = _words("checkedlabels annotatedlabels verifiedlabels labelschecked checked")
# if images have several rows: which of their labels are there?
SCORES = _words(
    """score scores probability prob likelihood certainty similarity logit verified isverified
    reviewed correct accepted valid"""
)
# never labels, even if they hold 0 and 1
NEVER = _words(
    """id index idx level0 indexlevel0 row rownumber rownum no nr width height channels
    fold folds kfold cvfold annotator annotatorid annotationid leadtime score confidence
    probability prob numlabels nlabels labelcount sex gender unlabeled unlabelled verified
    isverified reviewed
    xmin ymin xmax ymax x1 y1 x2 y2 patientage patientsex patientgender followup"""
)
# no labels, unless they hold 0 and 1: then the user decides
ABOUT = _words(
    """size filesize bytes weight rating quality age lat lon latitude longitude timestamp time date
    x y w h bbox year month day createdat updatedat user author source license caption title
    text comment comments notes description url cocourl flickrurl md5 hash sha256 group cluster area
    camera device city country location orientation rotation viewposition view position format mode
    depth resolution photographer owner uploader worker viewer dpi exif
    done checked approved labeled labelled annotated finished completed processed status use
    used usable include included exclude excluded skip skipped ignore ignored keep delete deleted
    remove removed unsure uncertain duplicate flagged corrupt corrupted invalid occluded occlusion
    truncated truncation"""
)
# who gave the labels of a row
RATERS = _words("annotator annotatorid annotatedby annotatorname labeler labelerid labeller rater")
RATERS |= _words("raterid reader readerid worker workerid user userid expert reviewer createdby")
AS_SPLIT = frozenset(("valid", "val", "validation", "test", "testing", "training"))

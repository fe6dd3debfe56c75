#compdef @NAME@
# Completion for zsh. Put it into a folder of $fpath as _@NAME@, or source it.
_@FUNCTION@() {
    local -a answer described
    local line kind tab=$'\t'
    answer=("${(@f)$("${(Q)words[1]}" completions --candidates -- "${(@Q)words[2,CURRENT]}" 2> /dev/null)}")
    kind=$answer[1]
    case $kind in
        files) compset -P '*='; _files; return ;;
        directories) compset -P '*='; _files -/; return ;;
    esac
    for line in "${(@)answer[2,-1]}"; do
        described+=("${${line%%$tab*}//:/\\:}:${line#*$tab}")
    done
    if [[ $kind == open ]]; then
        _describe '@NAME@' described -S ''
    else
        _describe '@NAME@' described
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _@FUNCTION@ "$@"
else
    compdef _@FUNCTION@ @NAME@
fi

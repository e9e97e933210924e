@echo off
rem Sets up MOVA Studio in this folder. Needs no administrator, no git and no Python: double-click it.
rem MOVA_UV_URL names a mirror of uv's releases. Run it again at any time: it goes on where it stopped.
setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul
set "UV=0.13.0"
set "URL=https://github.com/astral-sh/uv/releases/download/%UV%"
if defined MOVA_UV_URL set "URL=%MOVA_UV_URL%"
for %%v in (PYTHON SUM GOT HAVE) do set "%%v="
set "ZIP=.uv\uv-%RANDOM%%RANDOM%.zip"
cd /d "%~dp0"
if errorlevel 1 goto :unreachable
if not exist ".uv\" mkdir ".uv"
>".uv\.gitignore" echo *
if not exist ".uv\.gitignore" goto :readonly
set "ARCH=%PROCESSOR_ARCHITECTURE%"
if defined PROCESSOR_ARCHITEW6432 set "ARCH=%PROCESSOR_ARCHITEW6432%"
if /i "%ARCH%"=="AMD64" set "SUM=088962f9e7b7bd9ea740c04c650b2a21c8928c345bd99ac24350dc924dba656c"
if not defined SUM goto :system
if exist ".uv\uv.exe" for /f "usebackq tokens=1,2" %%a in (`.uv\uv.exe --version`) do if "%%a %%b"=="uv %UV%" set "HAVE=1"
if defined HAVE goto :python
echo Fetching uv %UV%, which brings Python (20 MB) ...
curl -fL --retry 2 --connect-timeout 15 --progress-bar -o "%ZIP%" "%URL%/uv-x86_64-pc-windows-msvc.zip"
if errorlevel 1 goto :system
for /f "usebackq skip=1 delims=" %%h in (`certutil -hashfile "%ZIP%" SHA256`) do if not defined GOT set "GOT=%%h"
if /i not "%GOT: =%"=="%SUM%" goto :forged
tar -xf "%ZIP%" -C ".uv" uv.exe
if errorlevel 1 goto :system
:python
if exist "%ZIP%" del /q "%ZIP%"
set "UV_PYTHON_INSTALL_DIR=%CD%\.uv\python"
set "UV_CACHE_DIR=%CD%\.uv\cache"
".uv\uv.exe" python install --quiet --no-bin --no-registry 3.12
if errorlevel 1 goto :system
for /f "usebackq delims=" %%p in (`.uv\uv.exe python find --managed-python 3.12`) do set "PYTHON=%%p"
if defined PYTHON goto :setup
:system
if exist "%ZIP%" del /q "%ZIP%"
for /f "usebackq delims=" %%p in (`py -3 -c "import sys, venv, ensurepip; print(sys.executable * (sys.version_info >= (3, 11)))"`) do set "PYTHON=%%p"
if not defined PYTHON goto :nopython
:setup
<nul >".uv\path" set /p "=%PYTHON%"
"%PYTHON%" launch.py setup
if errorlevel 1 goto :failed
if /i not "%~1"=="--no-shortcuts" "%PYTHON%" launch.py shortcuts
echo Done. Start the studio with start.bat.
if not defined MOVA_QUIET pause
exit /b 0
:unreachable
echo This folder cannot be opened from here. Copy it to a drive of this computer, such as C:\MOVA.& goto :failed
:readonly
echo Cannot write in "%CD%". Move the folder to where you may write, such as C:\MOVA.& goto :failed
:forged
del /q "%ZIP%"
echo What came is not uv %UV%: its sha256 is another one. It was deleted.& goto :system
:nopython
echo Python could not be fetched, and this computer has none from 3.11 on. Check the connection and start again.
:failed
if not defined MOVA_QUIET pause
exit /b 1
